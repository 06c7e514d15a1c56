package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Load is a batch of messages to inject. Each recipient gets an address of its own, t-LAB-NUMBER at one of the domains,
// so that a delivery anywhere names the very recipient it was for.
type Load struct {
	Count      int      `json:"count"`
	Domains    []string `json:"domains"`              // of recipients, in turn
	Shapes     []string `json:"shapes,omitempty"`     // see Shapes; in turn; "plain" if empty
	Recipients int      `json:"recipients,omitempty"` // a message; 1 if 0
	Sender     string   `json:"sender,omitempty"`     // envelope sender; made up, one for each message, if empty
	Size       int      `json:"size,omitempty"`       // bytes of body, about; 1 kB if 0
	Via        string   `json:"via,omitempty"`        // smtp (or empty) or sendmail
	Instance   string   `json:"instance,omitempty"`   // the primary if empty
	Side       Side     `json:"side,omitempty"`       // where SMTP comes from: world (or empty) or relay
	// Connections is how many SMTP sessions, or sendmail processes, work at the same time; 8 if 0.
	Connections int `json:"connections,omitempty"`
	// Client and SASLUser are claimed by XCLIENT, which the lab's Postfix allows to its customers.
	Client   string `json:"client,omitempty"`
	SASLUser string `json:"sasl_user,omitempty"`
	// NoPipelining waits for each reply, as a simple client does.
	NoPipelining bool `json:"no_pipelining,omitempty"`
	// ReplySeconds bounds the wait for each reply; 30 if 0. A frozen spool must not hang the injector for ever.
	ReplySeconds int `json:"reply_seconds,omitempty"`
}

// Fate of an injected recipient as the injector saw it.
const (
	Accepted = "accepted" // 250 after the final dot, or exit 0 of sendmail: Postfix has taken responsibility
	Refused  = "refused"  // it said no
	Unknown  = "unknown"  // the session broke after the content was sent, before the answer
)

// Injected is one recipient of one injected message.
type Injected struct {
	Number  int    `json:"number"` // unique in the lab
	Token   string `json:"token"`  // local part that the ledger will show; a shape may have added to t-LAB-NUMBER
	Rcpt    string `json:"rcpt"`   // as it stands in the envelope
	Sender  string `json:"sender"`
	Shape   string `json:"shape"`
	QueueID string `json:"queue_id,omitempty"` // sendmail does not tell one
	Fate    string `json:"fate"`
	Reply   string `json:"reply,omitempty"` // what Postfix answered if it did not accept
}

// journalLine is a line of the journal: numbers taken for a batch, written before the first of them is used, or what
// became of one recipient. Numbers without a line of their own were cut off with their injector: their fate is unknown.
type journalLine struct {
	From int `json:"from,omitempty"`
	To   int `json:"to,omitempty"`
	*Injected
}

// Inject sends a batch and returns what became of each recipient, also if it could not send all of it.
func (l *Lab) Inject(ctx context.Context, load Load) ([]Injected, error) {
	messages, journal, err := l.prepare(load)
	if err != nil {
		return nil, fmt.Errorf("inject: %w", err)
	}
	defer journal.Close()
	in, err := l.instance(load.Instance)
	if err != nil {
		return nil, fmt.Errorf("inject: %w", err)
	}
	queue := make(chan *message)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var results []Injected
	var errs []error
	settle := func(m *message, err error) {
		mu.Lock()
		defer mu.Unlock()
		results = append(results, m.fates()...)
		if err != nil && len(errs) < 5 {
			errs = append(errs, err)
		}
		if err := journal.add(m.fates()); err != nil {
			errs = append(errs, err)
		}
	}
	workers := max(1, min(defaultTo(load.Connections, 8), len(messages)))
	for range workers {
		wg.Go(func() {
			if load.Via == "sendmail" {
				l.submitAll(ctx, in, queue, settle)
				return
			}
			c := smtpClient{lab: l, load: load, address: in.Address + ":25"}
			defer c.close()
			for m := range queue {
				settle(m, c.send(ctx, m))
			}
		})
	}
	for _, m := range messages {
		queue <- m
	}
	close(queue)
	wg.Wait()
	slices.SortFunc(results, func(a, b Injected) int { return a.Number - b.Number })
	return results, errors.Join(errs...)
}

func defaultTo(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// prepare builds the messages of a batch under numbers that no other batch has.
func (l *Lab) prepare(load Load) ([]*message, *journal, error) {
	if load.Count < 1 || len(load.Domains) == 0 {
		return nil, nil, errors.New("a batch needs a count and at least one recipient domain")
	}
	if load.Via != "" && load.Via != "smtp" && load.Via != "sendmail" {
		return nil, nil, fmt.Errorf("way in %q is unknown; use smtp or sendmail", load.Via)
	}
	if len(load.Shapes) == 0 {
		load.Shapes = []string{"plain"}
	}
	table := shapes()
	for _, name := range load.Shapes {
		if table[name].build == nil {
			return nil, nil, fmt.Errorf("shape %q is unknown; there are %s", name, strings.Join(slices.Sorted(maps.Keys(table)), " "))
		}
	}
	width := defaultTo(load.Recipients, 1)
	j, first, err := openJournal(l.Dir, load.Count*width)
	if err != nil {
		return nil, nil, err
	}
	messages := make([]*message, 0, load.Count)
	for i := range load.Count {
		name := load.Shapes[i%len(load.Shapes)]
		m := newMessage(l.Name, name, load.Domains[i%len(load.Domains)], first+i*width, width, load)
		table[name].build(m)
		messages = append(messages, m)
	}
	return messages, j, nil
}

// submitAll hands messages to sendmail(1), as a local program does.
func (l *Lab) submitAll(ctx context.Context, in instance, queue <-chan *message, settle func(*message, error)) {
	for m := range queue {
		argv := []string{"sendmail", "-C", in.configDir(), "-oi", "-f", m.sender}
		if m.sender == "" {
			argv[len(argv)-1] = "<>"
		}
		if m.notify != "" {
			argv = append(argv, "-N", strings.ToLower(m.notify))
		}
		argv = append(argv, "--")
		for _, r := range m.rcpts {
			argv = append(argv, r.addr)
		}
		content := strings.ReplaceAll(string(m.content), "\r\n", "\n")
		res, err := l.ExecWith(ctx, ExecOptions{Stdin: strings.NewReader(content)}, argv...)
		switch {
		case err != nil:
			m.settle(Unknown, err.Error())
		case res.Code != 0:
			m.settle(Refused, strings.TrimSpace(res.Stderr))
		default:
			m.settle(Accepted, "")
		}
		settle(m, err)
	}
}

// journal is the open journal of one batch.
type journal struct {
	mu sync.Mutex
	f  *os.File
}

// openJournal takes count numbers, durably before any is used: two injectors, or one that was killed and started
// again, never make the same token.
func openJournal(dir string, count int) (*journal, int, error) {
	f, err := os.OpenFile(filepath.Join(dir, injectName), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, 0, fmt.Errorf("open journal: %w", err)
	}
	j := &journal{f: f}
	first, err := func() (int, error) {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return 0, fmt.Errorf("lock journal: %w", err)
		}
		defer func() { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }() // closing the journal would unlock it as well
		next := 1
		if data, err := os.ReadFile(filepath.Join(dir, "next")); err == nil {
			if next, err = strconv.Atoi(string(data)); err != nil {
				return 0, fmt.Errorf("read next token number: %w", err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "next"), []byte(strconv.Itoa(next+count)), 0o644); err != nil {
			return 0, fmt.Errorf("take token numbers: %w", err)
		}
		return next, j.write(journalLine{From: next, To: next + count - 1})
	}()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return j, first, nil
}

func (j *journal) add(results []Injected) error {
	lines := make([]journalLine, len(results))
	for i := range results {
		lines[i].Injected = &results[i]
	}
	return j.write(lines...)
}

// write appends whole lines in one call, so that two writers never mix within a line.
func (j *journal) write(lines ...journalLine) error {
	var b []byte
	for _, line := range lines {
		data, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("encode journal line: %w", err)
		}
		b = append(append(b, data...), '\n')
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.f.Write(b); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// Close ends the batch.
func (j *journal) Close() error { return j.f.Close() }

// Injections returns everything that was ever injected into this lab, by any process. A number that was taken and never
// settled comes back with fate Unknown and nothing but its plain token.
func (l *Lab) Injections() ([]Injected, error) {
	f, err := os.Open(filepath.Join(l.Dir, injectName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	defer f.Close()
	var all []Injected
	settled := map[int]bool{}
	var taken [][2]int
	r := bufio.NewReader(f)
	for {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // a torn last line belongs to a number that stays unsettled
		}
		if err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		var line journalLine
		if err := json.Unmarshal(text, &line); err != nil {
			return nil, fmt.Errorf("decode journal line: %w", err)
		}
		if line.Injected == nil {
			taken = append(taken, [2]int{line.From, line.To})
			continue
		}
		all = append(all, *line.Injected)
		settled[line.Number] = true
	}
	for _, span := range taken {
		for n := span[0]; n <= span[1]; n++ {
			if !settled[n] {
				all = append(all, Injected{Number: n, Token: token(l.Name, n), Fate: Unknown, Reply: "the injector ended before it knew"})
			}
		}
	}
	return all, nil
}

// pollEvery is how long the lab's own waits sleep between two looks.
const pollEvery = 100 * time.Millisecond
