package hand

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/act/internal/postcmd"
	"holdfast/durable"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/audit"
	"holdfast/record/vault"
)

// argument makes a start of this program a hand. It is no verb: the command
// line does not know it.
const argument = "__hand"

// The requests.
const (
	askBegin = iota + 1
	askAppend
	askAdopt
	askPostsuper
	askVault
	askReveal
	askKeep
	askReserve
	askCheckpoint
	askPurge
	askItems
	askVerify
	askKeeper
)

// server is a hand at work.
type server struct {
	Options
	conn    *net.UnixConn
	lock    *durable.Lock
	log     *audit.Log
	vault   *vault.Store
	intents map[uint64]*intent
	// allowed are entries of this run that allow content to be revealed.
	allowed map[uint64][]byte // their details
}

// intent is one that has no outcome yet.
type intent struct {
	entry  record.Entry
	plan   string
	verb   plan.Verb
	inodes map[postfix.QueueID]uint64
	kept   map[postfix.QueueID]fileState
}

// fileState tells whether a file on hold is still the one that was copied.
type fileState struct {
	inode        uint64
	size         int64
	mtime, ctime unix.Timespec
}

// Serve is the whole life of a hand that Start started, or of a keeper, and
// reports whether args are those of one. The main function calls it before anything else.
func Serve(args []string) bool {
	if len(args) != 2 || args[1] != argument {
		return serveKeeper(args)
	}
	// What the operator's terminal sends is for the reader, who then says what
	// is to be done. An act that has begun is finished and recorded.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGPIPE)
	unix.Umask(0o077)
	// Mail passes through its memory on the way to the vault: no core of it.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		return true
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return true
	}
	s := &server{conn: unixConn, intents: make(map[uint64]*intent), allowed: make(map[uint64][]byte)}
	first, err := receive(conn)
	// This one frame is JSON: it comes from the program while it was root and
	// had not looked at any mail.
	if err != nil || json.Unmarshal(first.buf, &s.Options) != nil || s.check() != nil {
		return true
	}
	for {
		f, err := receive(conn)
		if err != nil {
			return true // the reader is done, gone, or talks nonsense
		}
		if err := s.answer(f); err != nil {
			return true
		}
	}
}

// answer serves one request. An error means that the other side is not there.
func (s *server) answer(f *frame) error {
	reply, file, err := s.serve(f)
	var out frame
	if err != nil {
		out.putNumber(1)
		var e *postfix.Error
		if !errors.As(err, &e) {
			e = &postfix.Error{Kind: postfix.Failed, Err: err}
		}
		out.putNumber(uint64(e.Kind))
		out.putText(err.Error())
		out.putText(e.Hint)
		return send(s.conn, out.buf)
	}
	out.putNumber(0)
	out.buf = append(out.buf, reply.buf...)
	if err := send(s.conn, out.buf); err != nil || file == nil {
		return err
	}
	_, _, err = s.conn.WriteMsgUnix([]byte{'f'}, unix.UnixRights(int(file.Fd())), nil)
	return errors.Join(err, file.Close())
}

// serve does what is asked.
func (s *server) serve(f *frame) (reply frame, file *os.File, err error) {
	kind := f.number()
	if s.log == nil && kind != askBegin && kind != askKeep {
		return reply, nil, refused("the lock is not held")
	}
	switch kind {
	case askBegin:
		err = s.begin(f)
	case askAppend:
		reply, err = s.append(f)
	case askAdopt:
		err = s.adopt(f)
	case askPostsuper:
		reply, err = s.postsuper(f)
	case askVault:
		reply, err = s.keepCopies(f)
	case askReveal:
		file, err = s.reveal(f)
	case askKeep:
		err = s.keep(f)
	case askReserve:
		n := f.int()
		if err = f.done(); err == nil {
			err = s.log.Reserve(n)
		}
	case askCheckpoint:
		var note string
		if err = f.done(); err == nil {
			note, err = s.log.Checkpoint()
		}
		reply.putText(note)
	case askPurge:
		err = s.purge(f)
	case askItems:
		reply, err = s.itemStates(f)
	case askVerify:
		reply, err = s.verifyVault(f)
	case askKeeper:
		if err = f.done(); err == nil {
			err = s.startKeeper()
		}
	default:
		err = ErrFrame
	}
	return reply, file, err
}

func refused(format string, args ...any) error {
	return &postfix.Error{Kind: postfix.Refused, Err: fmt.Errorf(format, args...)}
}

// begin takes the lock and opens what is written to.
func (s *server) begin(f *frame) error {
	if err := f.done(); err != nil || s.log != nil {
		return err
	}
	if err := s.makeState(); err != nil {
		return err
	}
	lock, err := durable.TryLock(filepath.Join(s.StateDir, "lock"))
	var held *durable.HeldError
	if errors.As(err, &held) {
		return &postfix.Error{Kind: postfix.Refused, Err: err, Hint: "wait until it ends; a lock goes with its process, however that ends"}
	}
	if err != nil {
		return err
	}
	if s.vault, err = vault.Open(filepath.Join(s.StateDir, "vault"), s.Recipients); err == nil {
		s.log, err = audit.Open(filepath.Join(s.StateDir, "audit"))
	}
	if err != nil {
		return errors.Join(err, lock.Unlock())
	}
	s.lock = lock
	s.setAside()
	return nil
}

// makeState makes the directory of state where it is missing. It refuses one
// below which somebody else could put another file under the name of a record.
func (s *server) makeState() error {
	if err := durable.MkdirAll(s.StateDir, 0o711); err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(s.StateDir)
	for err == nil {
		var st unix.Stat_t
		if err = unix.Lstat(dir, &st); err != nil {
			break
		}
		others := st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0
		if int(st.Uid) != os.Geteuid() && st.Uid != 0 || others {
			return &postfix.Error{
				Kind: postfix.Refused, Op: "keep the record in", Object: s.StateDir, Err: fmt.Errorf("%q can be changed by others than root", dir),
				Hint: "chown root " + dir + " && chmod go-w " + dir + ", after a look at what lies there; or --state-dir names another place",
			}
		}
		if dir == "/" {
			return nil
		}
		dir = filepath.Dir(dir)
	}
	return fmt.Errorf("look at the directory of state: %w", err)
}

// append writes an entry, and remembers an intent.
func (s *server) append(f *frame) (reply frame, err error) {
	kind, ref, files := record.Kind(f.text()), f.number(), f.files()
	detail := bytes.Clone(f.bytes())
	if err := f.done(); err != nil {
		return reply, err
	}
	var in *intent
	switch kind {
	case record.Intended:
		if in, err = newIntent(record.Entry{Files: files, Detail: detail}); err != nil {
			return reply, err
		}
	case record.Settled:
		if s.intents[ref] == nil {
			return reply, refused("entry %d is no open intent of this run", ref)
		}
	case record.Kept, record.Begin, record.Torn:
		return reply, refused("entries of kind %q are the hand's own", kind)
	}
	if kind != record.Intended && len(files) > 0 {
		return reply, refused("an entry of kind %q names no files", kind)
	}
	e, err := s.log.Append(kind, ref, files, detail)
	if err != nil {
		return reply, err
	}
	switch kind {
	case record.Intended:
		in.entry = e
		s.intents[e.Seq] = in
		if in.verb == plan.Restore {
			s.allowed[e.Seq] = detail
		}
	case record.Settled:
		delete(s.intents, ref)
		delete(s.allowed, ref)
	case record.Looked:
		s.allowed[e.Seq] = detail
	}
	reply.putEntry(e)
	return reply, nil
}

// intentStart is how record.Encode begins the detail of an intent. The hand
// compares it as text, so that the verb which it obeys is the one on record.
var intentStart = regexp.MustCompile(`^\{"plan":"([0-9a-f]{64})","verb":"([a-z]+)","batch":[0-9]+,"targets":\[`)

func newIntent(e record.Entry) (*intent, error) {
	m := intentStart.FindSubmatch(e.Detail[:min(len(e.Detail), 200)])
	if len(m) < 3 || !slices.Contains(plan.Verbs(), plan.Verb(m[2])) {
		return nil, refused("the intent does not say which plan and verb it is of")
	}
	in := &intent{
		entry: e, plan: string(m[1]), verb: plan.Verb(m[2]),
		inodes: make(map[postfix.QueueID]uint64, len(e.Files)), kept: make(map[postfix.QueueID]fileState),
	}
	for _, file := range e.Files {
		if !postfix.ValidQueueID(string(file.ID)) {
			return nil, refused("%q is no queue ID", file.ID)
		}
		if _, twice := in.inodes[file.ID]; twice {
			return nil, refused("the intent names %q twice", file.ID)
		}
		in.inodes[file.ID] = file.Inode
	}
	return in, nil
}

func (s *server) adopt(f *frame) error {
	e := f.entry()
	e.Detail = bytes.Clone(e.Detail)
	if err := f.done(); err != nil {
		return err
	}
	if err := s.log.Adopt(e); err != nil {
		return err
	}
	in, err := newIntent(e)
	if err != nil {
		return err
	}
	s.intents[e.Seq] = in
	return nil
}

// open finds an open intent, and reads it back from the disk.
func (s *server) open(seq uint64) (*intent, error) {
	in := s.intents[seq]
	if in == nil {
		return nil, refused("there is no open intent %d", seq)
	}
	return in, s.log.ReadBack(in.entry)
}

// mayDo lists the operations that a verb takes.
func mayDo(v plan.Verb) []Op {
	switch v {
	case plan.Hold:
		return []Op{HoldWaiting, HoldAny, Release} // Release: of what turned out to be another message
	case plan.Release, plan.Try:
		return []Op{Release, HoldWaiting}
	case plan.Requeue:
		return []Op{HoldWaiting, Requeue}
	case plan.Expire:
		return []Op{HoldWaiting, HoldAny, Expire, Release}
	case plan.Delete:
		return []Op{HoldWaiting, HoldAny, Delete}
	}
	return nil
}

func (s *server) postsuper(f *frame) (reply frame, err error) {
	seq, op, ids := f.number(), Op(f.octet()), f.ids()
	if err := f.done(); err != nil {
		return reply, err
	}
	in, err := s.open(seq)
	if err != nil {
		return reply, err
	}
	if !slices.Contains(mayDo(in.verb), op) {
		return reply, refused("a plan to %s has no use for operation %d", in.verb, op)
	}
	if len(ids) == 0 {
		return reply, refused("no message is named")
	}
	for _, id := range ids {
		inode, ok := in.inodes[id]
		if !ok {
			return reply, refused("intent %d does not name %q", seq, id)
		}
		if op == Delete {
			if err := s.unchanged(in, id, inode); err != nil {
				return reply, err
			}
		}
	}
	said, err := postcmd.Run(context.Background(), postcmd.Call{
		CommandDir: s.CommandDir, ConfigDir: s.ConfigDir, Op: postcmd.Op(op), IDs: ids,
		Inherit: []*os.File{s.lock.File()}, Patience: s.Patience,
	})
	if err != nil {
		return reply, err
	}
	// postsuper renames and does not sync: without this an outcome could be on
	// disk that the spool, after a power cut, knows nothing of.
	if err := s.syncHold(ids); err != nil {
		return reply, err
	}
	reply.putIDs(said.IDs)
	reply.putInt(int64(said.Exit))
	reply.putText(said.Signal)
	timedOut := uint64(0)
	if said.TimedOut {
		timedOut = 1
	}
	reply.putNumber(timedOut)
	reply.putText(strings.Join(said.Warnings, "\n"))
	reply.putInt(int64(said.Took))
	return reply, nil
}

// syncHold syncs the directories of the hold queue in which messages lie.
func (s *server) syncHold(ids []postfix.QueueID) error {
	done := make(map[string]bool)
	for _, id := range ids {
		dir := filepath.Dir(s.place("hold", id))
		if done[dir] {
			continue
		}
		done[dir] = true
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // a hash directory that nothing was ever in
		}
		if err != nil {
			return fmt.Errorf("sync the hold queue: %w", err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync the hold queue: %w", err)
		}
	}
	return nil
}

// place is where Postfix has a file of a queue, or of a directory of logs.
func (s *server) place(dir string, id postfix.QueueID) string {
	in := postfix.Instance{HashedQueues: s.HashedQueues, HashDepth: s.HashDepth}
	return filepath.Join(s.QueueDir, dir, id.HashPath(in.DepthOf(dir)), string(id))
}

// openFile opens a file of the spool, which belongs to somebody who may plant
// there what he likes.
func (s *server) openFile(path string) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOATIME, Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, st, err
	}
	f := os.NewFile(uintptr(fd), path)
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || int(st.Uid) != s.OwnerUID) {
		err = errors.New("it is no regular file of the mail owner's with one name")
	}
	if err != nil {
		return nil, st, errors.Join(err, f.Close())
	}
	return f, st, nil
}

func stateOf(st unix.Stat_t) fileState { return fileState{st.Ino, st.Size, st.Mtim, st.Ctim} }

// unchanged refuses a deletion of what is not the file that was copied.
func (s *server) unchanged(in *intent, id postfix.QueueID, inode uint64) error {
	kept, ok := in.kept[id]
	if !ok {
		return refused("%q is not in the vault", id)
	}
	f, st, err := s.openFile(s.place("hold", id))
	if err != nil {
		return refused("%q on hold: %w", id, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if stateOf(st) != kept || st.Ino != inode {
		return refused("%q is not as it was when it was copied", id)
	}
	return nil
}

// keepCopies copies messages on hold to the vault, and records it.
func (s *server) keepCopies(f *frame) (reply frame, err error) {
	seq := f.number()
	copies := make([]Copy, f.count(3))
	for i := range copies {
		copies[i] = Copy{postfix.QueueID(f.text()), f.number(), f.text()}
	}
	if err := f.done(); err != nil {
		return reply, err
	}
	in, err := s.open(seq)
	if err != nil {
		return reply, err
	}
	if in.verb != plan.Delete && in.verb != plan.Expire && in.verb != plan.Requeue {
		return reply, refused("a plan to %s copies nothing", in.verb)
	}
	batch := &copying{server: s, intent: in, failed: make(map[postfix.QueueID]string), states: make(map[postfix.QueueID]fileState)}
	defer batch.close()
	for _, c := range copies {
		if err := batch.add(c); err != nil {
			batch.failed[c.ID] = err.Error()
		}
	}
	kept, err := batch.write(seq)
	if err != nil {
		return reply, err
	}
	if len(kept.Items) > 0 {
		detail, err := record.Encode(kept)
		if err != nil {
			return reply, err
		}
		if _, err := s.log.Append(record.Kept, seq, nil, detail); err != nil {
			return reply, err
		}
	}
	for _, item := range kept.Items {
		in.kept[item.ID] = batch.states[item.ID]
	}
	putKept(&reply, kept, batch.failed)
	return reply, nil
}

// copying is one batch on its way to the vault.
type copying struct {
	*server
	intent  *intent
	sources []vault.Source
	sums    map[postfix.QueueID]string
	states  map[postfix.QueueID]fileState
	failed  map[postfix.QueueID]string
	open    []*os.File
}

func (c *copying) close() {
	for _, f := range c.open {
		_ = f.Close() // only read
	}
}

// add opens a message and compares it with what the reader compared.
func (c *copying) add(want Copy) error {
	inode, ok := c.intent.inodes[want.ID]
	if !ok || inode != want.Inode {
		return errors.New("the intent does not name it")
	}
	f, st, err := c.openFile(c.place("hold", want.ID))
	if err != nil {
		return err
	}
	c.open = append(c.open, f)
	if st.Ino != inode {
		return errors.New("another file has its name now")
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, st.Size)); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != want.Sum {
		return errors.New("its bytes are not those that were compared")
	}
	src := vault.Source{ID: want.ID, Members: []vault.Part{{Member: vault.QueueFile, From: io.NewSectionReader(f, 0, st.Size)}}}
	for _, m := range []vault.Member{vault.DeferLog, vault.BounceLog, vault.TraceLog} {
		log, st, err := c.openFile(c.place(string(m), want.ID))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("its %s log: %w", m, err)
		}
		c.open = append(c.open, log)
		src.Members = append(src.Members, vault.Part{Member: m, From: io.NewSectionReader(log, 0, st.Size)})
	}
	c.sources = append(c.sources, src)
	if c.sums == nil {
		c.sums = make(map[postfix.QueueID]string)
	}
	c.sums[want.ID], c.states[want.ID] = want.Sum, stateOf(st)
	return nil
}

// write makes the pack. A name that is taken is that of a run which was cut off
// between the pack and its entry; its pack stays and is named as planted.
func (c *copying) write(seq uint64) (record.KeptBody, error) {
	if len(c.sources) == 0 {
		return record.KeptBody{}, nil
	}
	name := fmt.Sprintf("%s-%d-%d", plan.Short(c.intent.plan), seq, time.Now().UnixNano())
	kept, failed, err := c.vault.Write(name, c.sources)
	if err != nil {
		return kept, err
	}
	for id, why := range failed {
		c.failed[id] = why
	}
	for _, item := range kept.Items {
		if item.Sum != c.sums[item.ID] {
			return kept, fmt.Errorf("copy %q: its bytes changed meanwhile", item.ID)
		}
	}
	kept.Plan = c.intent.plan
	return kept, nil
}

var itemName = regexp.MustCompile(`^[a-z0-9-]{1,80}\.[0-9]{1,9}$`)

// reveal hands over an item as a file in memory.
func (s *server) reveal(f *frame) (*os.File, error) {
	authority, item := f.number(), f.text()
	if err := f.done(); err != nil {
		return nil, err
	}
	detail, ok := s.allowed[authority]
	if !ok || !itemName.MatchString(item) || !bytes.Contains(detail, []byte(`"item":"`+item+`"`)) {
		return nil, refused("entry %d does not allow item %q to be read", authority, item)
	}
	fd, err := unix.MemfdCreate("vault", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("reveal %q: %w", item, err)
	}
	memory := os.NewFile(uintptr(fd), item)
	err = s.vault.Copy(memory, item, vault.QueueFile)
	if err == nil {
		_, err = memory.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	return memory, nil
}

var fileName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,100}$`)

// keep stores a file of state.
func (s *server) keep(f *frame) error {
	shelf, name, content := Shelf(f.octet()), f.text(), f.bytes()
	if err := f.done(); err != nil {
		return err
	}
	dir, ok := shelfDir(shelf)
	if !ok || !fileName.MatchString(name) {
		return refused("there is no place for %q", name)
	}
	if shelf == Plans || shelf == Targets {
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != name {
			return refused("%q is not the digest of what it names", name)
		}
	}
	at := filepath.Join(s.StateDir, dir)
	if err := s.makeState(); err != nil {
		return err
	}
	if err := durable.MkdirFor(at, 0o700, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	return s.replace(filepath.Join(at, name), content)
}

func shelfDir(s Shelf) (string, bool) {
	switch s {
	case Plans:
		return "plans", true
	case Targets:
		return "targets", true
	case Snapshots:
		return "snapshots", true
	case Ledger:
		return "ledger", true
	}
	return "", false
}
