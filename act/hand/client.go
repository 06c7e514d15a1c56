package hand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/postfix"
	"holdfast/record"
)

// Options are what a hand is told at its start, by the program while it is
// still root.
type Options struct {
	StateDir  string
	ConfigDir string
	QueueDir  string
	// CommandDir is where postsuper is.
	CommandDir string
	// OwnerUID is the user ID of the mail owner.
	OwnerUID int
	// HashedQueues and HashDepth are those of the instance.
	HashedQueues []string
	HashDepth    int
	// Recipients are age public keys to which the vault is encrypted.
	Recipients []string
	// Settings is the file of Holdfast's own configuration, which a keeper goes
	// by; "" is the usual one.
	Settings string
	// Patience is how long one command of Postfix may take; 0 is ten minutes.
	Patience time.Duration
}

const usualPatience = 10 * time.Minute

func (o *Options) check() error {
	for _, dir := range []string{o.StateDir, o.ConfigDir, o.QueueDir, o.CommandDir} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("start the hand: %q is no absolute path", dir)
		}
	}
	if o.Patience <= 0 {
		o.Patience = usualPatience
	}
	return nil
}

// Client is a running hand, as its reader has it. It does one thing at a time.
type Client struct {
	mu   sync.Mutex
	conn *net.UnixConn
	cmd  *exec.Cmd
	dead error
}

// Start starts a hand. It must be called while the program is root, before the
// first byte of mail is read.
func Start(o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	setup, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("start the hand: %w", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start the hand: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "hand"), os.NewFile(uintptr(pair[1]), "hand")
	defer func() { _ = errors.Join(ours.Close(), theirs.Close()) }() // the connection and the child have copies
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("start the hand: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("start the hand: its socket is none"), conn.Close())
	}
	cmd := exec.Command("/proc/self/exe", argument) //nolint:noctx // this program itself, until Close
	cmd.Env, cmd.Dir, cmd.Stdin = []string{}, "/", theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the hand: %w", err), conn.Close())
	}
	c := &Client{conn: unixConn, cmd: cmd}
	if err := send(conn, setup); err != nil {
		return nil, errors.Join(fmt.Errorf("start the hand: %w", err), c.Close())
	}
	return c, nil
}

// Close ends the hand. It may be called on nil.
func (c *Client) Close() error {
	if c == nil {
		return nil
	}
	return errors.Join(c.conn.Close(), c.cmd.Wait())
}

// ask sends a request and reads the reply. The context is looked at before and
// not in between: what has begun is finished, since nothing else would know how
// it ended.
func (c *Client) ask(ctx context.Context, request frame) (*frame, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.dead != nil {
		return nil, c.dead
	}
	err := send(c.conn, request.buf)
	var reply *frame
	if err == nil {
		reply, err = receive(c.conn)
	}
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) {
			err = errors.New("it ended")
		}
		c.dead = &postfix.Error{
			Kind: postfix.Failed, Op: "ask the process that changes things", Err: err,
			Hint: "holdfast recover finds out what was done",
		}
		return nil, c.dead
	}
	if reply.number() == 0 && !reply.bad {
		return reply, nil
	}
	kind, text, hint := postfix.Kind(reply.octet()), reply.text(), reply.text()
	if err := reply.done(); err != nil {
		return nil, err
	}
	return nil, &postfix.Error{Kind: kind, Err: errors.New(text), Hint: hint}
}

// plain asks where nothing but success is answered.
func (c *Client) plain(ctx context.Context, request frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, request)
	if err != nil {
		return err
	}
	return reply.done()
}

// requestOf begins a request.
func requestOf(kind uint64) frame {
	var f frame
	f.putNumber(kind)
	return f
}

// Begin takes the lock under which everything else happens.
func (c *Client) Begin(ctx context.Context) error { return c.plain(ctx, requestOf(askBegin)) }

// Append writes one entry of the audit log.
func (c *Client) Append(ctx context.Context, kind record.Kind, ref uint64, files []record.File, detail any) (record.Entry, error) {
	text, err := record.Encode(detail)
	if err != nil {
		return record.Entry{}, err
	}
	f := requestOf(askAppend)
	f.putText(string(kind))
	f.putNumber(ref)
	f.putFiles(files)
	f.putBytes(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, f)
	if err != nil {
		return record.Entry{}, err
	}
	e := reply.entry()
	return e, reply.done()
}

// Adopt makes an open intent of an earlier hand this one's.
func (c *Client) Adopt(ctx context.Context, e record.Entry) error {
	f := requestOf(askAdopt)
	f.putEntry(e)
	return c.plain(ctx, f)
}

// Postsuper runs one operation on messages of an intent.
func (c *Client) Postsuper(ctx context.Context, intent uint64, op Op, ids []postfix.QueueID) (Printed, error) {
	f := requestOf(askPostsuper)
	f.putNumber(intent)
	f.putNumber(uint64(op))
	f.putIDs(ids)
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, f)
	if err != nil {
		return Printed{}, err
	}
	p := Printed{IDs: reply.ids(), Exit: int(reply.int()), Signal: reply.text(), TimedOut: reply.number() == 1}
	if warnings := reply.text(); warnings != "" {
		p.Warnings = strings.Split(warnings, "\n")
	}
	p.Took = time.Duration(reply.int())
	return p, reply.done()
}

func putKept(f *frame, kept record.KeptBody, failed map[postfix.QueueID]string) {
	f.putText(kept.Plan)
	f.putText(kept.Pack)
	f.putText(kept.Sum)
	f.putItems(kept.Items)
	f.putInt(int64(len(failed)))
	for id, why := range failed {
		f.putText(string(id))
		f.putText(why)
	}
}

func takeKept(f *frame) (record.KeptBody, map[postfix.QueueID]string) {
	kept := record.KeptBody{Plan: f.text(), Pack: f.text(), Sum: f.text()}
	kept.Items = f.items()
	failed := make(map[postfix.QueueID]string)
	for range f.count(2) {
		id := postfix.QueueID(f.text())
		failed[id] = f.text()
	}
	return kept, failed
}

// Vault copies held messages to the vault.
func (c *Client) Vault(ctx context.Context, intent uint64, copies []Copy) (record.KeptBody, map[postfix.QueueID]string, error) {
	f := requestOf(askVault)
	f.putNumber(intent)
	f.putInt(int64(len(copies)))
	for _, one := range copies {
		f.putText(string(one.ID))
		f.putNumber(one.Inode)
		f.putText(one.Sum)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, f)
	if err != nil {
		return record.KeptBody{}, nil, err
	}
	kept, failed := takeKept(reply)
	return kept, failed, reply.done()
}

// Reveal hands over the plain content of an item of the vault.
func (c *Client) Reveal(ctx context.Context, authority uint64, item string) (*os.File, error) {
	f := requestOf(askReveal)
	f.putNumber(authority)
	f.putText(item)
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, f)
	if err == nil {
		err = reply.done()
	}
	if err != nil {
		return nil, err
	}
	one, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, cn, _, _, err := c.conn.ReadMsgUnix(one, control)
	if err != nil || n != 1 {
		return nil, fmt.Errorf("reveal %q: %w", item, errors.Join(ErrFrame, err))
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("reveal %q: %w", item, errors.Join(ErrFrame, err))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("reveal %q: %w", item, errors.Join(ErrFrame, err))
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), item), nil
}

// Keep stores a file of state under its name.
func (c *Client) Keep(ctx context.Context, shelf Shelf, name string, content io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(content, maxFrame))
	if err != nil {
		return fmt.Errorf("keep %q: %w", name, err)
	}
	f := requestOf(askKeep)
	f.putNumber(uint64(shelf))
	f.putText(name)
	f.putBytes(text)
	return c.plain(ctx, f)
}

// Reserve sets space aside for so many bytes of entries.
func (c *Client) Reserve(ctx context.Context, bytes int64) error {
	f := requestOf(askReserve)
	f.putInt(max(bytes, 0))
	return c.plain(ctx, f)
}

// Checkpoint signs the head of the audit log.
func (c *Client) Checkpoint(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, requestOf(askCheckpoint))
	if err != nil {
		return "", err
	}
	note := reply.text()
	return note, reply.done()
}
