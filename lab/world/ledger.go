package world

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LedgerEntry says that one recipient of one message was taken over by a
// provider or a smart host.
type LedgerEntry struct {
	At       time.Time `json:"at"`
	Provider string    `json:"provider"`
	Host     string    `json:"host"`           // the MX host that took it
	Delivery string    `json:"delivery"`       // the same for all recipients of one transaction
	Token    string    `json:"token"`          // empty when the recipient's local part is not one
	Rcpt     string    `json:"rcpt"`           // as given in RCPT
	Sender   string    `json:"sender"`         // as given in MAIL; empty for the null sender
	Client   string    `json:"client"`         // the peer's address, without port
	QueueID  string    `json:"queue_id"`       // the sending relay's, from the topmost Received header
	Bytes    int64     `json:"bytes"`          // of the content as sent, dot stuffing undone
	TLS      bool      `json:"tls,omitempty"`  // came over TLS
	User     string    `json:"user,omitempty"` // the authenticated user, if any
	// Lost: the client was not told. The relay will send the message again and
	// is right to do so; a second entry of this token is no fault of anybody.
	Lost bool `json:"lost,omitempty"`
}

// ledgerLine is what a line of the file holds: an entry, or the later news
// that the 250 of a delivery could not be written to its client.
type ledgerLine struct {
	*LedgerEntry
	Unanswered string `json:"unanswered,omitempty"`
}

// ErrTornLedger reports that a ledger file ends in the middle of a line. The
// entries that were returned with it are complete: a torn line was never
// acknowledged to anybody. It is to be expected while the world runs and after
// it was killed.
var ErrTornLedger = errors.New("ledger ends in a torn line")

const ledgerGlob = "ledger-*.jsonl"

// ReadLedger returns everything that was ever delivered into the ledger in
// dir, oldest first, over all runs of the world. It may be called at any time.
// An error other than [ErrTornLedger] means that the ledger cannot be trusted.
func ReadLedger(dir string) ([]LedgerEntry, error) {
	files, err := filepath.Glob(filepath.Join(dir, ledgerGlob))
	if err != nil {
		return nil, fmt.Errorf("list ledger %q: %w", dir, err)
	}
	if len(files) == 0 {
		// A missing directory must not read as "nothing was delivered".
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
	}
	sort.Strings(files)
	var entries []LedgerEntry
	var torn error
	for _, file := range files {
		more, err := readLedgerFile(file)
		if err != nil && !errors.Is(err, ErrTornLedger) {
			return nil, err
		}
		torn = errors.Join(torn, err)
		entries = append(entries, more...)
	}
	return entries, torn
}

func readLedgerFile(file string) ([]LedgerEntry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	var entries []LedgerEntry
	byDelivery := make(map[string][]int)
	for n := 1; len(data) > 0; n++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return entries, fmt.Errorf("read ledger %q: line %d: %w", file, n, ErrTornLedger)
		}
		data = rest
		l := ledgerLine{LedgerEntry: new(LedgerEntry)}
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, fmt.Errorf("read ledger %q: line %d: %w", file, n, err)
		}
		if l.Unanswered != "" {
			for _, i := range byDelivery[l.Unanswered] {
				entries[i].Lost = true
			}
			continue
		}
		byDelivery[l.Delivery] = append(byDelivery[l.Delivery], len(entries))
		entries = append(entries, *l.LedgerEntry)
	}
	return entries, nil
}

// ledger appends with group commit: whatever arrives while one flush is under
// way shares the next, so that a thousand sessions cost a few flushes.
type ledger struct {
	file  *os.File
	queue chan ledgerCommit
	done  chan struct{}
	run   string

	mu     sync.Mutex // guards closed and sends on queue
	closed bool
}

type ledgerCommit struct {
	lines []ledgerLine
	err   chan<- error // nil: nobody waits
}

// openLedger starts a file of its own for this run. An older file is never
// appended to: its tail may be torn, and it is evidence.
func openLedger(dir string) (*ledger, error) {
	if dir == "" {
		return nil, errors.New("open ledger: ledger_dir is not set, and something is to deliver into it")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	file, run, err := createLedgerFile(dir)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &ledger{file: file, run: run, queue: make(chan ledgerCommit, 256), done: make(chan struct{})}
	go l.write()
	return l, nil
}

func createLedgerFile(dir string) (*os.File, string, error) {
	for n := 1; ; n++ {
		run := fmt.Sprintf("%06d", n)
		name := filepath.Join(dir, strings.Replace(ledgerGlob, "*", run, 1))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		// The name must outlive a crash as the content does.
		d, err := os.Open(dir)
		if err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
		if err != nil {
			return nil, "", errors.Join(err, f.Close())
		}
		return f, run, nil
	}
}

// commit returns when all the lines are on disk, or with the reason why they
// may not be.
func (l *ledger) commit(lines []ledgerLine) error {
	answer := make(chan error, 1)
	if err := l.send(ledgerCommit{lines, answer}); err != nil {
		return err
	}
	return <-answer
}

// unanswered records that a delivery's 250 did not reach its client.
func (l *ledger) unanswered(delivery string) error {
	return l.commit([]ledgerLine{{Unanswered: delivery}})
}

func (l *ledger) send(c ledgerCommit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("write ledger: closed")
	}
	l.queue <- c
	return nil
}

func (l *ledger) close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.done
	return l.file.Close()
}

func (l *ledger) write() {
	defer close(l.done)
	var dead error
	for first := range l.queue {
		batch := append([]ledgerCommit{first}, l.waiting()...)
		if dead == nil {
			// After a failed flush the kernel may call the next one good although
			// pages were dropped, so the first failure is final.
			dead = l.flush(batch)
		}
		for _, c := range batch {
			if c.err != nil {
				c.err <- dead
			}
		}
	}
}

func (l *ledger) waiting() []ledgerCommit {
	var more []ledgerCommit
	for {
		select {
		case c, open := <-l.queue:
			if !open {
				return more
			}
			more = append(more, c)
		default:
			return more
		}
	}
}

func (l *ledger) flush(batch []ledgerCommit) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	now := time.Now().UTC()
	for _, c := range batch {
		for _, line := range c.lines {
			if line.LedgerEntry != nil {
				line.At = now
			}
			if err := enc.Encode(line); err != nil {
				return fmt.Errorf("write ledger: %w", err)
			}
		}
	}
	if _, err := l.file.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
		return fmt.Errorf("flush ledger %q: %w", l.file.Name(), err)
	}
	return nil
}

// tokenOf finds the token in a recipient address: the local part, if it has
// the form of one. Quotes and an address extension belong to the transport of
// the token, not to the token.
func tokenOf(rcpt string) string {
	at := strings.LastIndexByte(rcpt, '@')
	if at < 0 {
		at = len(rcpt)
	}
	local := unquoteLocal(rcpt[:at])
	local, _, _ = strings.Cut(local, "+")
	if !strings.HasPrefix(local, "t-") || len(local) == len("t-") || strings.ContainsRune(local, '@') {
		return ""
	}
	return local
}

func unquoteLocal(local string) string {
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return local
	}
	var b strings.Builder
	inner := local[1 : len(local)-1]
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

// The topmost Received header was written by the relay that is connected to
// us. Its "by" part comes after the client's HELO name, which a stranger
// chose, so the search for "id" starts there (RFC 5321 4.4).
var receivedID = regexp.MustCompile(`(?s)(?:^|\s)by\s.*?\sid\s+([0-9A-Za-z]+)`)

// queueIDOf finds the sending relay's queue ID in the head of a message.
func queueIDOf(head []byte) string {
	for len(head) > 0 && head[0] != '\r' && head[0] != '\n' {
		var field []byte
		field, head = cutField(head)
		if !hasFold(field, "received:") {
			continue // a milter may have put a header above
		}
		if m := receivedID.FindSubmatch(field[len("received:"):]); m != nil {
			return string(m[1])
		}
		return ""
	}
	return ""
}

// cutField splits off the first header field with its continuation lines.
func cutField(head []byte) (field, rest []byte) {
	for i, c := range head {
		if c == '\n' && (i+1 == len(head) || head[i+1] != ' ' && head[i+1] != '\t') {
			return head[:i+1], head[i+1:]
		}
	}
	return head, nil
}

func hasFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && strings.EqualFold(string(b[:len(prefix)]), prefix)
}
