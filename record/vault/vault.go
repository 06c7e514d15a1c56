// Package vault keeps copies of messages before anything ends them: the queue
// file and its defer, bounce and trace logs, as raw bytes.
//
// Copies lie in packs, one file for each batch, so that a thousand messages
// cost one sync of the disk and not a thousand. A pack gets its name when it is
// whole, on disk, and read back. Afterwards only Purge changes it.
//
// Invariants: an item that Write has returned can be read back bit by bit; an
// item whose bytes are not those that were written is named as damaged and
// never handed out; nothing is decoded that came from mail.
//
// Where recipients are given, each file is encrypted by age to them, and a host
// that has only their public keys can keep copies and not read them. age tells
// nobody who encrypted: what proves an item is the digest of its pack in the
// audit log, which the caller compares (see Store.Verify).
//
// Bugs: the index of a pack is not encrypted: it has queue IDs, sizes and
// digests, and no addresses.
package vault

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"holdfast/durable"
	"holdfast/postfix"
	"holdfast/record"
)

// Errors that callers tell apart.
var (
	// ErrSealed says that an item is encrypted, and not for this host.
	ErrSealed = errors.New("the item is encrypted to a key that is not here")
	// ErrDamaged says that the bytes are not those that were written.
	ErrDamaged = errors.New("the vault's copy is damaged")
	// ErrNoItem says that there is no such item, or no more.
	ErrNoItem = errors.New("the vault has no such item")
)

const (
	suffix    = ".pack"
	preamble  = "holdfast vault 1\n"
	trailer   = "index %016d %016d %s\n" // offset, length, SHA-256
	maxIndex  = 64 << 20
	maxMember = 1 << 40
)

var trailerLength = int64(len(fmt.Sprintf(trailer, 0, 0, strings.Repeat("0", 64))))

var packName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,80}$`)

// Member is one file of a message.
type Member string

// The members. An item has a queue file; the others where they exist.
const (
	QueueFile Member = "queue"
	DeferLog  Member = "defer"
	BounceLog Member = "bounce"
	TraceLog  Member = "trace"
)

// Source is a message that is to be copied. The readers are read to their end.
type Source struct {
	ID      postfix.QueueID
	Members []Part
}

// Part is one file of a Source.
type Part struct {
	Member Member
	From   io.Reader
}

// stored is a member as it lies in a pack.
type stored struct {
	Member Member `json:"member"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	// Sum is that of the plain bytes, StoredSum that of the bytes in the pack.
	Sum       string `json:"sha256"`
	StoredSum string `json:"stored_sha256"`
	Size      int64  `json:"size"`
	Sealed    bool   `json:"sealed,omitempty"`
}

type indexItem struct {
	Name    string          `json:"name"`
	ID      postfix.QueueID `json:"id"`
	Members []stored        `json:"members"`
}

// Store is a vault. It is for one goroutine.
type Store struct {
	dir        string
	recipients []age.Recipient
}

// Open opens a vault and makes its directory where it is missing. recipients
// are age public keys; none means that copies are kept as they are.
func Open(dir string, recipients []string) (*Store, error) {
	st, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = durable.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o711); err == nil {
			err = durable.MkdirFor(dir, 0o700, os.Geteuid(), os.Getegid())
		}
	case err == nil && (!st.IsDir() || st.Mode().Perm()&0o077 != 0):
		err = fmt.Errorf("%q is %v, not a directory for its owner alone", dir, st.Mode())
	}
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	s := &Store{dir: dir}
	for _, text := range recipients {
		// One of either kind: the hybrid keys are those that age now makes.
		keys, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(keys) != 1 {
			return nil, fmt.Errorf("open the vault: %q is no age recipient: %w", text, err)
		}
		s.recipients = append(s.recipients, keys...)
	}
	return s, nil
}

// Write keeps copies of messages in a new pack. What could not be read is in
// the map, with the reason, and not in the pack. Where nothing could be, there
// is no pack and the body is empty.
func (s *Store) Write(pack string, sources []Source) (record.KeptBody, map[postfix.QueueID]string, error) {
	fail := func(err error) (record.KeptBody, map[postfix.QueueID]string, error) {
		return record.KeptBody{}, nil, fmt.Errorf("write to the vault: %w", err)
	}
	if !packName.MatchString(pack) {
		return fail(fmt.Errorf("%q is no name for a pack", pack))
	}
	file, err := durable.Create(s.path(pack), 0o600)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = file.Discard() }() // nothing is left to fail once it is committed
	w := &packWriter{whole: sha256.New(), recipients: s.recipients}
	w.out = bufio.NewWriterSize(io.MultiWriter(file, w.whole), 1<<16)
	if err := w.text(preamble); err != nil {
		return fail(err)
	}
	failed := make(map[postfix.QueueID]string)
	var items []indexItem
	for _, src := range sources {
		item, err := w.item(src, pack+"."+strconv.Itoa(len(items)+1))
		if w.broken != nil {
			return fail(w.broken)
		}
		if err != nil {
			failed[src.ID] = err.Error()
			continue
		}
		items = append(items, item)
	}
	if len(items) == 0 {
		return record.KeptBody{}, failed, nil
	}
	if err := w.index(items); err != nil {
		return fail(err)
	}
	if err := readBack(file, items); err != nil {
		return fail(err)
	}
	if err := file.Commit(); err != nil {
		return fail(err)
	}
	return record.KeptBody{Pack: pack, Sum: hex.EncodeToString(w.whole.Sum(nil)), Items: recordItems(items)}, failed, nil
}

func recordItems(items []indexItem) []record.Item {
	out := make([]record.Item, 0, len(items))
	for _, item := range items {
		queue := item.Members[0]
		out = append(out, record.Item{Name: item.Name, ID: item.ID, Sum: queue.Sum, Size: queue.Size})
	}
	return out
}

// packWriter writes a pack from front to back.
type packWriter struct {
	out        *bufio.Writer
	whole      hash.Hash
	recipients []age.Recipient
	at         int64
	broken     error // the pack itself could not be written
}

func (w *packWriter) text(s string) error {
	n, err := w.out.WriteString(s)
	w.at += int64(n)
	return err
}

// item copies one message. An error with broken unset concerns it alone: its
// bytes stay in the pack, and nothing names them.
func (w *packWriter) item(src Source, name string) (indexItem, error) {
	item := indexItem{Name: name, ID: src.ID}
	if !postfix.ValidQueueID(string(src.ID)) || len(src.Members) == 0 || src.Members[0].Member != QueueFile {
		return item, errors.New("it has no queue ID or no queue file")
	}
	for _, part := range src.Members {
		m, err := w.member(part)
		if err != nil {
			return item, err
		}
		item.Members = append(item.Members, m)
	}
	return item, nil
}

// counted counts and hashes what goes into the pack.
type counted struct {
	w   *packWriter
	sum hash.Hash
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.out.Write(p)
	c.w.at += int64(n)
	c.sum.Write(p[:n])
	if err != nil {
		c.w.broken = err
	}
	return n, err
}

func (w *packWriter) member(part Part) (stored, error) {
	m := stored{Member: part.Member, Offset: w.at, Sealed: len(w.recipients) > 0}
	into := &counted{w: w, sum: sha256.New()}
	plain := sha256.New()
	var dst io.Writer = into
	var sealer io.WriteCloser
	if m.Sealed {
		var err error
		if sealer, err = age.Encrypt(into, w.recipients...); err != nil {
			w.broken = err
			return m, err
		}
		dst = sealer
	}
	size, err := io.Copy(io.MultiWriter(plain, dst), part.From)
	if err == nil && sealer != nil {
		err = sealer.Close()
	}
	if err != nil {
		return m, fmt.Errorf("read the %s file: %w", part.Member, err)
	}
	m.Size, m.Length = size, w.at-m.Offset
	m.Sum, m.StoredSum = hex.EncodeToString(plain.Sum(nil)), hex.EncodeToString(into.sum.Sum(nil))
	return m, nil
}

// index ends the pack.
func (w *packWriter) index(items []indexItem) error {
	text, err := record.Encode(items)
	if err != nil {
		return err
	}
	at := w.at
	if err := w.text(string(text)); err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	if err := w.text(fmt.Sprintf(trailer, at, len(text), hex.EncodeToString(sum[:]))); err != nil {
		return err
	}
	return w.out.Flush()
}

// readBack compares what is in the file with what was meant to be.
func readBack(file io.ReaderAt, items []indexItem) error {
	for _, item := range items {
		for _, m := range item.Members {
			sum := sha256.New()
			if _, err := io.Copy(sum, io.NewSectionReader(file, m.Offset, m.Length)); err != nil {
				return fmt.Errorf("read %q back: %w", item.Name, err)
			}
			if hex.EncodeToString(sum.Sum(nil)) != m.StoredSum {
				return fmt.Errorf("read %q back: %w", item.Name, ErrDamaged)
			}
		}
	}
	return nil
}

func (s *Store) path(pack string) string { return filepath.Join(s.dir, pack+suffix) }

// pack is a pack that is open.
type pack struct {
	file  *os.File
	size  int64
	items []indexItem
}

// open reads the index of a pack. A link or a second name in its place is
// refused.
func (s *Store) open(name string, flags int) (*pack, error) {
	if !packName.MatchString(name) {
		return nil, fmt.Errorf("open pack %q: %w", name, ErrNoItem)
	}
	f, err := os.OpenFile(s.path(name), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNoItem
	}
	if err != nil {
		return nil, fmt.Errorf("open pack %q: %w", name, err)
	}
	p := &pack{file: f}
	if err := p.read(name); err != nil {
		return nil, errors.Join(fmt.Errorf("open pack %q: %w", name, err), f.Close())
	}
	return p, nil
}

func (p *pack) read(name string) error {
	st, err := p.file.Stat()
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*unixStat); !st.Mode().IsRegular() || !ok || sys.Nlink != 1 {
		return fmt.Errorf("it is no file with one name: %w", ErrDamaged)
	}
	p.size = st.Size()
	text, err := readIndex(p.file, p.size)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p.items); err != nil || dec.More() {
		return fmt.Errorf("its index is none: %w", errors.Join(ErrDamaged, err))
	}
	return checkIndex(p.items, name, p.size-trailerLength-int64(len(text)))
}

// readIndex finds the index by the trailer and compares its digest.
func readIndex(r io.ReaderAt, size int64) ([]byte, error) {
	bad := func(what string) ([]byte, error) { return nil, fmt.Errorf("%s: %w", what, ErrDamaged) }
	start := make([]byte, len(preamble))
	end := make([]byte, trailerLength)
	if size < int64(len(start))+trailerLength {
		return bad("it is too short for a pack")
	}
	_, err1 := r.ReadAt(start, 0)
	_, err2 := r.ReadAt(end, size-trailerLength)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	var at, length int64
	var sum string
	_, err := fmt.Sscanf(string(end), trailer, &at, &length, &sum)
	if err != nil || string(start) != preamble || string(end) != fmt.Sprintf(trailer, at, length, sum) ||
		length < 2 || length > maxIndex || at != size-trailerLength-length || at < int64(len(preamble)) {
		return bad("its beginning or its end is not that of a pack")
	}
	text := make([]byte, length)
	if _, err := r.ReadAt(text, at); err != nil {
		return nil, err
	}
	if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
		return bad("its index is not the one that was written")
	}
	return text, nil
}

// checkIndex refuses an index that does not describe a pack of that name.
func checkIndex(items []indexItem, name string, end int64) error {
	at := int64(len(preamble))
	for i, item := range items {
		if item.Name != name+"."+strconv.Itoa(i+1) || !postfix.ValidQueueID(string(item.ID)) || len(item.Members) == 0 || item.Members[0].Member != QueueFile {
			return fmt.Errorf("item %d of its index is none: %w", i+1, ErrDamaged)
		}
		for _, m := range item.Members {
			if m.Offset < at || m.Length < 0 || m.Length > maxMember || m.Offset > end-m.Length {
				return fmt.Errorf("item %d of its index lies nowhere: %w", i+1, ErrDamaged)
			}
			at = m.Offset + m.Length
		}
	}
	return nil
}

// find returns an item and its open pack.
func (s *Store) find(item string, flags int) (*pack, *indexItem, error) {
	name, _, ok := strings.Cut(item, ".")
	if !ok {
		return nil, nil, fmt.Errorf("item %q: %w", item, ErrNoItem)
	}
	p, err := s.open(name, flags)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(p.items, func(it indexItem) bool { return it.Name == item })
	if i < 0 {
		return nil, nil, errors.Join(fmt.Errorf("item %q: %w", item, ErrNoItem), p.file.Close())
	}
	return p, &p.items[i], nil
}

// Copy writes one file of an item to w. The digest is known at the end only, so
// w must be something that is thrown away where an error comes back. identities
// open what is encrypted.
func (s *Store) Copy(w io.Writer, item string, member Member, identities ...age.Identity) (err error) {
	p, found, err := s.find(item, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.file.Close()) }()
	i := slices.IndexFunc(found.Members, func(m stored) bool { return m.Member == member })
	if i < 0 {
		return fmt.Errorf("item %q has no %s file: %w", item, member, ErrNoItem)
	}
	m := found.Members[i]
	storedSum, plainSum := sha256.New(), sha256.New()
	raw := io.TeeReader(io.NewSectionReader(p.file, m.Offset, m.Length), storedSum)
	from := raw
	if m.Sealed {
		if len(identities) == 0 {
			return fmt.Errorf("item %q: %w", item, ErrSealed)
		}
		if from, err = age.Decrypt(raw, identities...); err != nil {
			return fmt.Errorf("item %q: %w: %w", item, ErrSealed, err)
		}
	}
	if _, err := io.Copy(io.MultiWriter(w, plainSum), from); err != nil {
		return fmt.Errorf("item %q: %w: %w", item, ErrDamaged, err)
	}
	if hex.EncodeToString(storedSum.Sum(nil)) != m.StoredSum || hex.EncodeToString(plainSum.Sum(nil)) != m.Sum {
		return fmt.Errorf("item %q: %w", item, ErrDamaged)
	}
	return nil
}

// SameFilesystem reports whether two paths lie on one file system: a vault
// beside the spool fills up together with it.
func SameFilesystem(a, b string) (bool, error) {
	var one, other unix.Stat_t
	if err := errors.Join(unix.Stat(a, &one), unix.Stat(b, &other)); err != nil {
		return false, fmt.Errorf("compare file systems: %w", err)
	}
	return one.Dev == other.Dev, nil
}
