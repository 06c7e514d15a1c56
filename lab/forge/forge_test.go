package forge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/postfix"
)

var arrival = time.Unix(1767225600, 654321000).UTC()

// newPrivate makes a spool and a configuration that Postfix's programs are
// pointed at, below /var/tmp: a directory of the test itself would be closed
// to the mail owner, whom showq runs as.
func newPrivate(t *testing.T, s *Spool) *Private {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "holdfast-forge-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := NewPrivate(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run starts one of Postfix's programs and returns what it printed.
func run(t *testing.T, p *Private, name string, args ...string) string {
	t.Helper()
	cmd := p.Command(t.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.String())
	}
	return string(out)
}

// shapes are messages of many kinds; the tests below hold what Postfix's
// programs say about each against what was asked for.
func shapes() map[string]*Message {
	greylisted := &Reason{Status: "4.2.0", Host: "mx.y.example", Reply: "450 4.2.0 greylisted", Text: "host mx.y.example[192.0.2.1] said: 450 4.2.0 greylisted (in reply to RCPT TO command)"}
	refused := &Reason{Status: "4.4.1", Text: "connect to mx.z.example[192.0.2.2]:25: Connection refused"}
	wide := &Message{Sender: "list@x.example", Arrival: arrival, Size: 3000}
	for i := range 1000 {
		wide.Recipients = append(wide.Recipients, Recipient{Address: fmt.Sprintf("member%d@y%d.example", i, i%7), Done: i%3 == 0, Deferred: map[bool]*Reason{true: greylisted}[i%3 != 0]})
	}
	return map[string]*Message{
		"plain":     {Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example", Deferred: greylisted}}, Arrival: arrival, Size: 2000},
		"null":      {Sender: "", Recipients: []Recipient{{Address: "b@y.example", Deferred: refused}}, Arrival: arrival},
		"half done": {Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example", Done: true}, {Address: "c@z.example", Deferred: refused}, {Address: "d@z.example", Cancelled: true}}, Arrival: arrival},
		"all done":  {Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example", Done: true}}, Arrival: arrival},
		"quoted":    {Sender: "odd name@x.example", Recipients: []Recipient{{Address: `two words"@y.example`, Original: "alias@x.example", Notify: 8, Deferred: greylisted}}, Arrival: arrival},
		"milter": {
			Sender: "a@x.example", Milter: true, AddedHeaders: []string{"X-Checked: yes"}, Arrival: arrival, Size: 5000,
			Recipients: []Recipient{{Address: "b@y.example"}, {Address: "archive@x.example", Place: InHeap, Notify: 1, Deferred: refused}},
		},
		"extracted": {Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example", Place: InExtracted}}, Arrival: arrival, Milter: true},
		"client": {
			Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival, SASLUser: "alice",
			Client: postfix.Client{Name: "pc.x.example", Address: "192.0.2.77", Helo: "pc"}, Filter: "smtp:[127.0.0.1]:10025", Redirect: "quarantine@x.example", MessageID: "<1@x.example>",
		},
		"utf8":     {Sender: "jörg@x.example", Recipients: []Recipient{{Address: "łukasz@y.example"}}, Arrival: arrival, SMTPUTF8: true},
		"long":     {Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival, Content: []byte("Subject: long\n\n" + strings.Repeat("x", 70000) + "\nend\n")},
		"expired":  {Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival, ForceExpire: true, FlushRequested: true, Warned: arrival},
		"held":     {Queue: postfix.Hold, Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival, FullName: "Ann Example", WarningSent: true},
		"new":      {Queue: postfix.Incoming, Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival},
		"active":   {Queue: postfix.Active, Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival},
		"maildrop": {Queue: postfix.Maildrop, Sender: "root", FullName: "root", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival},
		"wide":     wide,
	}
}

// listed is one line of postqueue -j.
type listed struct {
	Queue   string `json:"queue_name"`
	ID      string `json:"queue_id"`
	Arrival int64  `json:"arrival_time"`
	Size    int64  `json:"message_size"`
	Expired bool   `json:"forced_expire"`
	Sender  string `json:"sender"`
	Rcpts   []struct {
		Address string `json:"address"`
		Reason  string `json:"delay_reason"`
	} `json:"recipients"`
}

func TestPostqueueReadsWhatIsForged(t *testing.T) {
	for _, long := range []bool{false, true} {
		for depth := range 3 {
			t.Run(fmt.Sprintf("long=%v depth=%d", long, depth), func(t *testing.T) {
				t.Parallel()
				p := newPrivate(t, &Spool{LongIDs: long, HashDepth: depth})
				written := make(map[string]*Message)
				for name, m := range shapes() {
					id, err := p.Spool.Write(m)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					written[string(id)] = m
				}
				dec := json.NewDecoder(strings.NewReader(run(t, p, "postqueue", "-j")))
				for {
					var got listed
					if err := dec.Decode(&got); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						t.Fatal(err)
					}
					m, ok := written[got.ID]
					if !ok {
						t.Fatalf("postqueue lists %q, which was not written, or lists it twice", got.ID)
					}
					delete(written, got.ID)
					compareListed(t, m, got)
				}
				for id := range written {
					t.Errorf("postqueue does not list %q", id)
				}
			})
		}
	}
}

func compareListed(t *testing.T, m *Message, got listed) {
	t.Helper()
	if got.Queue != m.queue().String() || got.Arrival != m.Arrival.Unix() || got.Expired != m.ForceExpire {
		t.Errorf("%s: postqueue says queue %q, arrival %d, expired %v", got.ID, got.Queue, got.Arrival, got.Expired)
	}
	sender := Quote(m.Sender)
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	if got.Sender != sender {
		t.Errorf("%s: postqueue says sender %q, written was %q", got.ID, got.Sender, m.Sender)
	}
	var want []string
	for _, r := range m.Recipients {
		reason := ""
		if r.Deferred != nil {
			reason = r.Deferred.Text
		}
		if !r.Done && !r.Cancelled {
			want = append(want, Quote(r.Address)+" "+reason)
		}
	}
	var have []string
	for _, r := range got.Rcpts {
		have = append(have, r.Address+" "+r.Reason)
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		t.Errorf("%s: postqueue lists recipients %q, written were %q", got.ID, have, want)
	}
}

func TestPostcatReadsWhatIsForged(t *testing.T) {
	t.Parallel()
	p := newPrivate(t, &Spool{HashDepth: 1})
	for name, m := range shapes() {
		id, err := p.Spool.Write(m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, want := run(t, p, "postcat", "-h", "-b", "-q", string(id)), wantContent(m); got != want {
			t.Errorf("%s: postcat shows content of %d bytes, written were %d; first difference at %d", name, len(got), len(want), firstDifference(got, want))
		}
		envelope := run(t, p, "postcat", "-e", "-q", string(id))
		for _, r := range m.Recipients {
			kind := "recipient: "
			switch {
			case r.Done:
				kind = "done_recipient: "
			case r.Cancelled:
				kind = "canceled_recipient: "
			}
			if !strings.Contains(envelope, kind+r.Address+"\n") {
				t.Errorf("%s: postcat does not show %s%s in\n%s", name, kind, r.Address, envelope)
			}
		}
		if !strings.Contains(envelope, "\nsender: "+m.Sender+"\n") {
			t.Errorf("%s: postcat does not show the sender in\n%s", name, envelope)
		}
	}
}

// wantContent is the text with the headers that a milter added behind the
// other headers.
func wantContent(m *Message) string {
	text := string(m.content())
	if len(m.AddedHeaders) == 0 {
		return text
	}
	head, body, _ := strings.Cut(text, "\n\n")
	return head + "\n" + strings.Join(m.AddedHeaders, "\n") + "\n\n" + body
}

func firstDifference(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestPostsuperFindsNothingToRepair proves names, inodes, places, modes and
// owners: postsuper -s repairs what is wrong with any of them, and says so.
func TestPostsuperFindsNothingToRepair(t *testing.T) {
	t.Parallel()
	p := newPrivate(t, &Spool{HashDepth: 2})
	var ids []postfix.QueueID
	var paths []string
	for _, m := range shapes() {
		id, err := p.Spool.Write(m)
		if err != nil {
			t.Fatal(err)
		}
		ids, paths = append(ids, id), append(paths, p.Spool.Path(m.queue().String(), id))
	}
	run(t, p, "postsuper", "-s", "-p")
	for i, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("postsuper repaired %s: %v", ids[i], err)
		}
	}
}

func TestNextTryIsTheTimeOfTheFile(t *testing.T) {
	t.Parallel()
	s := &Spool{Dir: t.TempDir(), HashDepth: 1}
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	next := arrival.Add(4000 * time.Second)
	id, err := s.Write(&Message{Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival, NextTry: next})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(s.Path("deferred", id))
	if err != nil {
		t.Fatal(err)
	}
	if !st.ModTime().Equal(next) || st.Mode().Perm() != 0o700 {
		t.Errorf("mtime %v and mode %v, want %v and 0700", st.ModTime(), st.Mode(), next)
	}
	inode, err := id.Inode()
	if err != nil || inode != st.Sys().(*syscall.Stat_t).Ino {
		t.Errorf("ID %s names inode %d (%v), the file has %d", id, inode, err, st.Sys().(*syscall.Stat_t).Ino)
	}
}

func TestOffsetsPointToTheRecords(t *testing.T) {
	t.Parallel()
	for name, m := range shapes() {
		files := Lay(m)
		for i, r := range m.Recipients {
			want := AppendRecord(nil, r.kind(), r.Address)
			if !bytes.HasPrefix(files.Queue[files.Offsets[i]:], want) {
				t.Errorf("%s: no %q record of %q at offset %d", name, r.kind(), r.Address, files.Offsets[i])
			}
		}
	}
}

func TestWritersDoNotMeet(t *testing.T) {
	t.Parallel()
	s := &Spool{Dir: t.TempDir(), HashDepth: 1}
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[postfix.QueueID]bool)
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				id, err := s.Write(&Message{Sender: "a@x.example", Arrival: arrival.Add(time.Duration(w*50+i) * time.Millisecond), Recipients: []Recipient{{Address: "b@y.example", Deferred: &Reason{Text: "connect to y: timed out"}}}})
				mu.Lock()
				if err != nil || seen[id] {
					t.Errorf("write: %q, %v", id, err)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 400 {
		t.Errorf("%d IDs for 400 messages", len(seen))
	}
}

func TestAnExistingFileIsNotReplaced(t *testing.T) {
	t.Parallel()
	s := &Spool{Dir: t.TempDir()}
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	m := &Message{ID: "ABCDEF0123", Sender: "a@x.example", Recipients: []Recipient{{Address: "b@y.example"}}, Arrival: arrival}
	if _, err := s.Write(m); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(m); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second message under the same ID: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.Dir, "deferred"))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d entries left (%v), want the one message", len(entries), err)
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"a@b.example", "a@b.example"},
		{"a.b+c=d@b.example", "a.b+c=d@b.example"},
		{"two words@b.example", `"two words"@b.example`},
		{`q"b\@b.example`, `"q\"b\\"@b.example`},
		{".a@b.example", `".a"@b.example`},
		{"a..b@b.example", `"a..b"@b.example`},
		{"@b.example", `""@b.example`},
		{"a@b@c.example", `"a@b"@c.example`},
		{"jörg@b.example", "jörg@b.example"},
		{"root", "root"},
	} {
		if got := Quote(c.in); got != c.want {
			t.Errorf("Quote(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}
