package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// Detail is everything that the spool tells about one message.
type Detail struct {
	Message *postfix.Message
	// Finished are the recipients that were delivered or bounced; the queue
	// file does not say which.
	Finished []postfix.Recipient
	// Path is where the file lies, below the queue directory.
	Path string
	// Misplaced is set where Postfix would not find it there.
	Misplaced bool
	// Headers are the message's headers as they will be sent.
	Headers []Header
	// HeadersCut is set where there was more than the scanner takes.
	HeadersCut bool
	// Body is what follows the headers, up to the limit asked for; BodyCut is
	// set where there was more.
	Body    []byte
	BodyCut bool
	// Digest is the digest for a Fingerprint, where it was asked for.
	Digest string
	Gaps   []observe.Gap
}

// Want says how much of a message's content to read. The zero value reads none.
type Want struct {
	Headers bool
	// Body is how many bytes of the body to return at most.
	Body   int64
	Digest bool
}

// ErrNoMessage is returned for an ID that no queue has.
var ErrNoMessage = errors.New("no message has this queue ID")

// Inspect reads one message whole. It looks where Postfix would look first and
// then in every directory. Two messages with one ID are possible only in
// different queues; the one in the first queue of postfix.Queues is returned.
func (r *Reader) Inspect(ctx context.Context, id postfix.QueueID, want Want) (*Detail, error) {
	root, err := openAt(unix.AT_FDCWD, r.in.QueueDir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, cannotRead(r.in.QueueDir, err)
	}
	defer func() { _ = unix.Close(root) }()
	l := r.newLook(ctx, root)
	defer l.logs.close()
	w := l.workers[0]
	w.dec.all = true

	// A message may move from a queue that is still to be asked into one that
	// was: the second round finds it there. postsuper searches the same way.
	for range 2 {
		for _, q := range postfix.Queues() {
			if d, err := l.expected(w, q, id, want); d != nil || err != nil {
				return d, err
			}
		}
	}
	for _, q := range postfix.Queues() {
		if d, err := l.anywhere(w, q, id, want); d != nil || err != nil {
			return d, err
		}
	}
	if len(l.gaps.gaps) > 0 {
		return nil, &postfix.Error{Kind: postfix.CannotTell, Op: "look for message", Object: string(id), Err: l.firstError(), Hint: l.gaps.gaps[0].Hint}
	}
	return nil, ErrNoMessage
}

// expected looks for the message where Postfix would.
func (l *look) expected(w *worker, q postfix.Queue, id postfix.QueueID, want Want) (*Detail, error) {
	hash := id.HashPath(l.r.in.DepthOf(q.String()))
	d := &directory{queue: q, path: strings.TrimSuffix(q.String()+"/"+hash, "/"), hash: strings.ReplaceAll(hash, "/", ""), fd: -1}
	defer func() { d.close() }()
	parent := l.root
	for name := range strings.SplitSeq(d.path, "/") {
		fd, err := openAt(parent, name, dirFlags)
		d.close()
		if err != nil {
			if !errors.Is(err, unix.ENOENT) {
				l.gaps.add("spool", d.path, err, "")
			}
			return nil, nil
		}
		d.fd, parent = fd, fd
	}
	return l.detail(w, d, id, want)
}

// anywhere looks for the message in every directory of a queue.
func (l *look) anywhere(w *worker, q postfix.Queue, id postfix.QueueID, want Want) (*Detail, error) {
	lst := &lister{root: l.root, known: make(map[string]*directory), gaps: &l.gaps, now: func() int64 { return 0 }}
	defer func() {
		for _, d := range lst.known {
			d.close()
		}
	}()
	var hit *directory
	lst.emit = func(batch *names) error {
		for i := range batch.len() {
			if batch.at(i) == string(id) {
				hit = batch.dir
				return errFound
			}
		}
		return l.ctx.Err()
	}
	if _, err := lst.walk(q); err != nil && !errors.Is(err, errFound) {
		return nil, &postfix.Error{Kind: postfix.Interrupted, Op: "look for message", Object: string(id), Err: err}
	}
	if hit == nil {
		return nil, nil
	}
	return l.detail(w, hit, id, want)
}

var errFound = errors.New("found")

func (l *look) detail(w *worker, d *directory, id postfix.QueueID, want Want) (*Detail, error) {
	_, ok := w.read(d, string(id))
	for _, f := range w.found {
		if f.name != "" && f.kind == "" {
			l.gaps.add(f.source, d.path+"/"+f.name, f.err, "")
		}
	}
	kinds := w.found
	w.found, w.gone = nil, nil
	if !ok {
		for _, f := range kinds {
			if f.kind != "" {
				return nil, &postfix.Error{Kind: postfix.CannotTell, Op: "read queue file", Object: d.path + "/" + f.name, Err: errors.New("it is no readable message: " + string(f.kind))}
			}
		}
		return nil, nil // gone meanwhile, or a gap that Inspect reports
	}
	// Through the packing of a Snapshot, so that one message alone reads as it
	// does in a listing.
	packed, m := observe.NewShard(), new(postfix.Message)
	packed.Add(&w.dec.msg)
	packed.Get(0, m)
	m.Expires = l.r.in.Expires(m.Created, m.Sender)
	out := &Detail{Message: m, Finished: append([]postfix.Recipient(nil), w.dec.finished...), Path: d.path + "/" + string(id)}
	out.Misplaced = misplaced(d.hash, id, l.r.in.DepthOf(d.queue.String()))
	if want != (Want{}) {
		if err := l.readContent(w, d, id, want, out); err != nil {
			l.gaps.add("content", out.Path, err, "")
		}
	}
	out.Gaps = l.gaps.gaps
	return out, nil
}

// Headers reads the headers of a message that a Snapshot of this instance has.
// A message that has moved is looked for; one that is gone has none to read.
func (r *Reader) Headers(ctx context.Context, m *postfix.Message) ([]Header, error) {
	d, err := r.Inspect(ctx, m.ID, Want{Headers: true})
	if err != nil {
		return nil, err
	}
	if d.Message.Inode != m.Inode || !d.Message.Arrival.Equal(m.Arrival) {
		return nil, ErrNoMessage // another message has the ID by now
	}
	for _, g := range d.Gaps {
		if g.Source == "content" {
			return nil, errors.New(g.Text)
		}
	}
	return d.Headers, nil
}

func (l *look) readContent(w *worker, d *directory, id postfix.QueueID, want Want, out *Detail) error {
	var st unix.Stat_t
	fd, kind, err := l.r.openQueueFile(d, string(id), &st)
	if err == nil && kind != "" {
		err = errors.New(string(kind))
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	w.dec.win.fd = fd
	start, err := w.dec.contentStart()
	if err != nil {
		return err
	}
	if want.Digest {
		if out.Digest, err = digest(fd, st.Size, start); err != nil {
			return err
		}
	}
	if !want.Headers && want.Body <= 0 {
		return nil
	}
	text, err := openContent(fd, st.Size, start)
	if err != nil {
		return err
	}
	return out.take(text, want)
}

// maxHead is how much of a message is taken for its headers.
const maxHead = 1 << 20

func (out *Detail) take(text io.Reader, want Want) error {
	head, err := io.ReadAll(io.LimitReader(text, maxHead))
	headers, end := ScanHeaders(head)
	if want.Headers {
		out.Headers, out.HeadersCut = headers, end.Cut
	}
	if err != nil || want.Body <= 0 {
		return err
	}
	body := io.MultiReader(bytes.NewReader(head[end.Body:]), text)
	out.Body, err = io.ReadAll(io.LimitReader(body, want.Body+1))
	if int64(len(out.Body)) > want.Body {
		out.Body, out.BodyCut = out.Body[:want.Body], true
	}
	return err
}
