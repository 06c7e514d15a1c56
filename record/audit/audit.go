// Package audit keeps the audit log: a file of lines, each with the hash of the
// line before it, and signed checkpoints of it.
//
// Invariants: an entry that Append returned is on disk; after a write or a sync
// that failed nothing is written any more; what was once written is never
// changed, moved or cut, a torn end included. Nothing but the file is needed to
// verify it: no database, no index, no key that is not in it.
//
// Who can write to the file can write all of it anew, with hashes that fit. So
// checkpoints are signed, and a checkpoint that was taken elsewhere (a ticket, a
// mail, another host) shows what happened to the log and its own checkpoints
// together. The signing key lies beside the log: checkpoints protect from a
// change of the past by who cannot read that key, and, once they are elsewhere,
// from everybody.
//
// The Log, which runs as root, looks at the columns in front of a line and never
// decodes a detail; Read and Verify decode, and run without rights.
//
// Diagnostics: Verify names the first bad entry and why. Errors of Append wrap
// durable.ErrDead once the log is dead.
//
// Bugs: Open looks at the end of a log only; damage further in front is found
// by Verify and by Checkpoint, which signs no log that does not verify. Two
// writers side by side are for the caller's lock to prevent; they are noticed
// where the length of the file tells.
package audit

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"holdfast/durable"
	"holdfast/record"
)

// The files of the directory of an audit log.
const (
	LogName         = "audit.log"
	CheckpointsName = "checkpoints"
	KeyName         = "key"
)

// standing is the space that is set aside whenever a log is open: enough to
// settle on a full disk what was begun before it was full.
const standing = 32 << 20

// Errors that callers tell apart.
var (
	// ErrDead: a write failed earlier, and nothing is written any more.
	ErrDead = durable.ErrDead
	// ErrSettled: the intent has an outcome already.
	ErrSettled = errors.New("the intent has an outcome already")
	// ErrDiffers: what is on disk is not what was, or would have been, written.
	ErrDiffers = errors.New("the entry on disk is another")
	// ErrDamaged: a log is broken in another way than a crash breaks it.
	ErrDamaged = errors.New("the audit log is damaged")
)

// Log is an audit log that is open for writing. It is not for use by several
// goroutines at once.
type Log struct {
	dir  string
	file *durable.Appender
	last record.Entry // the head of the newest good entry; Seq 0 where there is none

	// What the last checkpoint of this Log covered, so that the next one reads
	// only what came after.
	signed record.Entry
	tree   tree
}

// Open opens the audit log in a directory, and makes directory, key and first
// entry where they are missing. Where a crash tore the end, it is closed by an
// entry that says so.
func Open(dir string) (*Log, error) {
	if err := ownDirectory(dir); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	file, err := durable.OpenAppend(filepath.Join(dir, LogName), 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l := &Log{dir: dir, file: file}
	if err := l.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the audit log: %w", err), file.Close())
	}
	return l, nil
}

// ownDirectory makes the directory, or sees to it that nobody else can reach
// what is in it.
func ownDirectory(dir string) error {
	st, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := durable.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o711); err != nil {
			return err
		}
		return durable.MkdirFor(dir, 0o700, os.Geteuid(), os.Getegid())
	}
	if err != nil {
		return err
	}
	if !st.IsDir() || st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%q is %v, not a directory for its owner alone: %w", dir, st.Mode(), fs.ErrPermission)
	}
	return nil
}

// start finds the end of the log, heals it, and writes the first entry.
func (l *Log) start() error {
	last, end, err := newest(l.file, l.file.Size())
	if err != nil {
		return err
	}
	l.last = last
	// On a disk without the space there may be what an earlier run set aside.
	// Whether there is shows when something is written.
	_ = l.file.Reserve(standing)
	if end < l.file.Size() {
		if err := l.heal(end); err != nil {
			return err
		}
	}
	w := newWalk(io.NewSectionReader(l.file, 0, l.file.Size()), head, record.Entry{})
	for !w.begun && w.next() { // one line, but where the first one was torn
	}
	if err := w.failure(); err != nil {
		return err
	}
	if w.begun {
		return nil
	}
	return l.begin()
}

// heal closes a torn end: it stays, becomes a line, and the entry after it
// names its bytes. Both go in one write; if that is torn too, the next heal
// covers all of it.
func (l *Log) heal(from int64) error {
	torn := make([]byte, l.file.Size()-from, l.file.Size()-from+1)
	if _, err := io.ReadFull(io.NewSectionReader(l.file, from, int64(len(torn))), torn); err != nil {
		return fmt.Errorf("read the torn end: %w", err)
	}
	if e, ok := l.lacksEnd(torn); ok {
		if _, err := l.file.Append([]byte("\n")); err != nil {
			return fmt.Errorf("end the last line: %w", err)
		}
		e.Offset = l.file.Size() - int64(e.Length)
		l.last = e
		return nil
	}
	var lead []byte
	if torn[len(torn)-1] != '\n' {
		lead = []byte("\n")
	}
	detail, err := tornDetail(from, append(torn, lead...))
	if err != nil {
		return err
	}
	if _, err := l.append(lead, record.Torn, 0, nil, detail); err != nil {
		return fmt.Errorf("record the torn end: %w", err)
	}
	return nil
}

// lacksEnd says whether all that a torn end lacks is its line end. The entry is
// then whole, and good: nothing was done on its word yet, which is a state that
// a crash right behind Append leaves too.
func (l *Log) lacksEnd(torn []byte) (record.Entry, bool) {
	e, err := head(torn[bytes.LastIndexByte(torn, '\n')+1:])
	prev := record.NoHash
	if l.last.Seq > 0 {
		prev = l.last.Hash
	}
	return e, err == nil && e.Seq == l.last.Seq+1 && e.Prev == prev
}

// begin writes the first entry: where the log was made, and whose signature is
// on its checkpoints.
func (l *Log) begin() error {
	key, err := l.makeKey()
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find out the name of the host: %w", err)
	}
	zone, _ := time.Now().Zone()
	detail, err := record.Encode(record.BeginBody{Host: host, Zone: zone, Key: key})
	if err != nil {
		return err
	}
	_, err = l.append(nil, record.Begin, 0, nil, detail)
	return err
}

// makeKey makes the key of checkpoints, or takes the one that is there because
// the program died between key and first entry, and returns what verifies it.
func (l *Log) makeKey() (verifier string, err error) {
	path := filepath.Join(l.dir, KeyName)
	secret, verifier, err := note.GenerateKey(rand.Reader, signerName)
	if err != nil {
		return "", fmt.Errorf("make the key of checkpoints: %w", err)
	}
	// Both halves in one file: a log without entries is no use of a key, so an
	// older one is replaced and never needed again.
	if err := durable.Replace(path, []byte(secret+"\n"+verifier+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the key of checkpoints: %w", err)
	}
	return verifier, nil
}

// Append writes one entry and returns it when it is on disk. files and detail
// are kept as they are; detail comes from record.Encode. ref names an earlier
// entry, or is 0.
func (l *Log) Append(kind record.Kind, ref uint64, files []record.File, detail []byte) (record.Entry, error) {
	if kind == record.Begin || kind == record.Torn {
		return record.Entry{}, fmt.Errorf("append to the audit log: entries of kind %q are its own: %w", kind, fs.ErrInvalid)
	}
	if ref > l.last.Seq {
		return record.Entry{}, fmt.Errorf("append to the audit log: entry %d, which it refers to, is not there: %w", ref, fs.ErrInvalid)
	}
	return l.append(nil, kind, ref, files, detail)
}

// append writes lead and an entry.
func (l *Log) append(lead []byte, kind record.Kind, ref uint64, files []record.File, detail []byte) (record.Entry, error) {
	e := record.Entry{
		Seq: l.last.Seq + 1, At: time.Now().UTC().Truncate(time.Microsecond), Kind: kind, Ref: ref,
		Prev: record.NoHash, Files: files, Detail: detail, Offset: l.file.Size() + int64(len(lead)),
	}
	if l.last.Seq > 0 {
		e.Prev = l.last.Hash
	}
	text, err := record.AppendLine(bytes.Clone(lead), &e)
	if err != nil {
		return record.Entry{}, fmt.Errorf("append to the audit log: %w", err)
	}
	e.Length = len(text) - len(lead)
	if e.Length > record.MaxLine {
		return record.Entry{}, fmt.Errorf("append to the audit log: %d bytes are too many for an entry: %w", e.Length, fs.ErrInvalid)
	}
	if _, err := l.file.Append(text); err != nil {
		return record.Entry{}, fmt.Errorf("append to the audit log: %w", err)
	}
	l.last = e
	l.last.Files, l.last.Detail = nil, nil
	return e, nil
}

// ReadBack compares what is on disk with an entry that Append returned.
func (l *Log) ReadBack(e record.Entry) error {
	want := e
	text, err := record.AppendLine(nil, &want)
	if err != nil {
		return fmt.Errorf("read entry %d back: %w", e.Seq, err)
	}
	if e.Offset < 0 || len(text) != e.Length || want.Hash != e.Hash {
		return fmt.Errorf("read entry %d back: %w", e.Seq, ErrDiffers)
	}
	got := make([]byte, len(text)+1)
	from := max(e.Offset-1, 0)
	got = got[:int64(len(text))+e.Offset-from]
	if _, err := io.ReadFull(io.NewSectionReader(l.file, from, int64(len(got))), got); err != nil {
		return fmt.Errorf("read entry %d back: %w: %w", e.Seq, ErrDiffers, err)
	}
	// An entry inside of another line is none.
	if rest, ok := bytes.CutSuffix(got, text); !ok || len(rest) > 0 && rest[0] != '\n' {
		return fmt.Errorf("read entry %d back: %w", e.Seq, ErrDiffers)
	}
	return nil
}

// Adopt checks an intent of an earlier run, as its reader returned it, before
// it is acted upon: it stands in the log to the byte, the log behind it is
// whole, and no outcome settles it.
func (l *Log) Adopt(e record.Entry) error {
	if err := l.ReadBack(e); err != nil {
		return fmt.Errorf("adopt an intent: %w", err)
	}
	if e.Kind != record.Intended {
		return fmt.Errorf("adopt entry %d of kind %q: %w", e.Seq, e.Kind, fs.ErrInvalid)
	}
	behind := e.Offset + int64(e.Length)
	w := newWalk(io.NewSectionReader(l.file, behind, l.file.Size()-behind), head, e)
	for w.next() {
		if w.entry.Kind == record.Settled && w.entry.Ref == e.Seq {
			return fmt.Errorf("adopt entry %d: %w", e.Seq, ErrSettled)
		}
	}
	if err := w.failure(); err != nil {
		return fmt.Errorf("adopt entry %d: %w", e.Seq, err)
	}
	if w.last.Seq != l.last.Seq || w.last.Hash != l.last.Hash {
		return fmt.Errorf("adopt entry %d: %w", e.Seq, ErrDiffers)
	}
	return nil
}

// Reserve sets aside disk space for entries of so many bytes, beside what is
// always set aside, and fails where there is not even space for them alone.
func (l *Log) Reserve(n int64) error {
	if n < 0 {
		return fmt.Errorf("reserve space for the audit log: %d bytes: %w", n, fs.ErrInvalid)
	}
	err := l.file.Reserve(n + standing)
	if err != nil && n > 0 {
		err = l.file.Reserve(n)
	}
	if err != nil {
		return fmt.Errorf("reserve space for the audit log: %w", err)
	}
	return nil
}

// Close lets go of the log.
func (l *Log) Close() error { return l.file.Close() }

// readKey returns the secret half of the key.
func (l *Log) readKey() (note.Signer, note.Verifier, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, KeyName), os.O_RDONLY|noFollow, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("read the key of checkpoints: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the key of checkpoints: %w", err)
	}
	secret, public, _ := strings.Cut(string(text), "\n")
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, nil, errors.New("read the key of checkpoints: it is none") // its text is a secret
	}
	verifier, err := note.NewVerifier(strings.TrimSuffix(public, "\n"))
	if err != nil {
		return nil, nil, fmt.Errorf("read the key of checkpoints: %w", err)
	}
	return signer, verifier, nil
}
