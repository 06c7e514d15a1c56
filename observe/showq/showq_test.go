package showq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"holdfast/lab/forge"
	"holdfast/observe"
	"holdfast/postfix"
)

// lookEnv makes the test program look at the queue directory that it names and
// print what became of it: that is how another account is tried.
const lookEnv = "HOLDFAST_TEST_SHOWQ_LOOK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(lookEnv); dir != "" {
		json.NewEncoder(os.Stdout).Encode(lookAs(dir))
		return
	}
	os.Exit(m.Run())
}

// attempt is the outcome of a Look in another process.
type attempt struct {
	Messages int
	Kind     postfix.Kind
	Error    string
	Hint     string
}

func lookAs(dir string) attempt {
	s, err := Look(context.Background(), instance(dir))
	var e *postfix.Error
	if errors.As(err, &e) {
		return attempt{Kind: e.Kind, Error: e.Error(), Hint: e.Hint}
	}
	if err != nil {
		return attempt{Error: err.Error()}
	}
	return attempt{Messages: s.Len()}
}

func instance(dir string) postfix.Instance {
	return postfix.Instance{Name: "postfix", ConfigDir: "/etc/postfix", QueueDir: dir, MailOwner: "postfix", SetgidGroup: "postdrop"}
}

// scratch is a directory that every account may enter.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "holdfast-showq-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve answers each connection to the instance's showq socket.
func serve(t *testing.T, answer func(net.Conn)) postfix.Instance {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "public", "showq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer(conn)
		}
	}()
	return instance(dir)
}

func private(t *testing.T) *forge.Private {
	t.Helper()
	p, err := forge.NewPrivate(scratch(t), &forge.Spool{HashDepth: 1})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLookAtRealShowq asks a real showq by its socket and holds the snapshot
// against postqueue -j on the same spool.
func TestLookAtRealShowq(t *testing.T) {
	p := private(t)
	for i := range 300 {
		m := &forge.Message{
			Sender: fmt.Sprintf("s%d@x.example", i%7), Arrival: time.Unix(1767225600+int64(i), int64(i)*1000), Size: 500 + i,
			Queue: []postfix.Queue{postfix.Deferred, postfix.Deferred, postfix.Hold, postfix.Incoming, postfix.Active, postfix.Maildrop}[i%6],
			Recipients: []forge.Recipient{
				{Address: fmt.Sprintf("r%d@y%d.example", i, i%11), Deferred: &forge.Reason{Text: fmt.Sprintf("connect to mx%d.example[192.0.2.1]:25: Connection timed out", i%5)}},
				{Address: "second one@y.example", Done: i%2 == 0},
			},
		}
		if _, err := p.Spool.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.ServeShowq(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := Look(t.Context(), p.Instance())
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Command(t.Context(), "postqueue", "-j").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	s.Each(func(m *postfix.Message) bool { got = append(got, lineOf(m)); return true })
	lines := linesOfPostqueue(t, want)
	slices.Sort(got)
	slices.Sort(lines)
	if diff := cmp.Diff(lines, got); diff != "" || len(got) != 300 {
		t.Errorf("%d messages; the snapshot differs from postqueue -j (-postqueue +look):\n%s", len(got), diff)
	}
	for _, q := range postfix.Queues() {
		if known := s.Shape(q).Known; known == (q == postfix.Corrupt || q == postfix.Saved) {
			t.Errorf("queue %v known: %v", q, known)
		}
	}
	if len(s.Gaps) != 1 || s.Gaps[0].Object != "corrupt, saved" || s.Source != observe.FromShowq {
		t.Errorf("gaps %v, source %q", s.Gaps, s.Source)
	}
	if s.From.After(s.To) || s.Shape(postfix.Deferred).Oldest.Unix() != 1767225600 {
		t.Errorf("from %v to %v, oldest deferred %v", s.From, s.To, s.Shape(postfix.Deferred).Oldest)
	}
}

// TestOthersMayAskOnlyByTheGroup tries, against a real showq behind the modes
// of a real spool, an account that may not ask and one of the set-gid group.
func TestOthersMayAskOnlyByTheGroup(t *testing.T) {
	p := private(t)
	if _, err := p.Spool.Write(&forge.Message{Sender: "a@x.example", Recipients: []forge.Recipient{{Address: "b@y.example"}}, Arrival: time.Unix(1767225600, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := p.ServeShowq(t.Context()); err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(p.Spool.Dir, "public")
	group := p.Command(t.Context(), "true").SysProcAttr.Credential.Gid
	if err := os.Chown(public, p.Spool.Owner.UID, int(group)); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	if got := lookFrom(t, p.Spool.Dir, nobody, group); got.Messages != 1 || got.Error != "" {
		t.Errorf("a member of the group sees %+v, want one message", got)
	}
	got := lookFrom(t, p.Spool.Dir, nobody, nobody)
	if got.Kind != postfix.CannotTell || !strings.Contains(got.Error, "permission denied") {
		t.Errorf("a stranger gets %+v, want permission denied, cannot tell", got)
	}
	for _, who := range []string{"root", "postfix", "postdrop"} {
		if !strings.Contains(got.Hint, who) {
			t.Errorf("the hint %q does not name %s", got.Hint, who)
		}
	}
}

// lookFrom runs a copy of this program under another account.
func lookFrom(t *testing.T, dir string, uid, gid uint32) attempt {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(scratch(t), "look")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{lookEnv + "=" + dir}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run as %d:%d: %v", uid, gid, err)
	}
	var got attempt
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

func TestLookCannotAsk(t *testing.T) {
	down := t.TempDir()
	if err := os.Mkdir(filepath.Join(down, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What is left when master stops: the socket file, and nobody behind it.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(down, "public", "showq"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	file := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(file, "public"), 0o755), os.WriteFile(filepath.Join(file, "public", "showq"), nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, dir, text, hint string }{
		{"stopped", down, "connection refused", "the mail system is down"},
		{"never started", t.TempDir(), "no such file or directory", "postfix -c '/etc/postfix' start"},
		{"no queue directory", "/nonexistent/spool", "no such file or directory", "postfix -c '/etc/postfix' start"},
		{"a file in its place", file, "connection refused", "the mail system is down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Look(t.Context(), instance(c.dir))
			var e *postfix.Error
			if s != nil || !errors.As(err, &e) || e.Kind != postfix.CannotTell {
				t.Fatalf("snapshot %v, error %v; want a *postfix.Error that cannot tell", s, err)
			}
			if !strings.Contains(e.Error(), c.text) || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("error %q, hint %q; want %q and %q", e, e.Hint, c.text, c.hint)
			}
			if strings.Count(e.Error(), c.dir) != 1 {
				t.Errorf("error %q names the directory more or less than once", e)
			}
		})
	}
}

// TestLookAtFullBacklog is a master that has been stopped: connections queue up
// until the kernel takes no more.
func TestLookAtFullBacklog(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	address := &unix.SockaddrUnix{Name: filepath.Join(dir, "public", "showq")}
	server, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	if err := errors.Join(unix.Bind(server, address), unix.Listen(server, 0)); err != nil {
		t.Fatal(err)
	}
	for {
		client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(client) })
		if err := unix.Connect(client, address); errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_, err = Look(t.Context(), instance(dir))
	var e *postfix.Error
	if !errors.As(err, &e) || e.Kind != postfix.CannotTell || !strings.Contains(e.Hint, "does not take calls") {
		t.Errorf("error %v, want one that says that nobody takes calls", err)
	}
}

// incomplete checks that a snapshot says that it is not whole.
func incomplete(t *testing.T, s *observe.Snapshot, messages int, text string) {
	t.Helper()
	if s.Len() != messages {
		t.Errorf("%d messages, want the %d that came", s.Len(), messages)
	}
	for _, q := range postfix.Queues() {
		if s.Shape(q).Known {
			t.Errorf("queue %v counts as known after half a listing", q)
		}
	}
	if !slices.ContainsFunc(s.Gaps, func(g observe.Gap) bool {
		return strings.Contains(g.Text, "incomplete") && strings.Contains(g.Text, text) && g.Hint != ""
	}) {
		t.Errorf("gaps %v do not say that the list is incomplete because %q", s.Gaps, text)
	}
}

func TestLookAtBrokenListing(t *testing.T) {
	text := construct(releases()[2], sample())
	third := bytes.Index(text, []byte("queue_name\x00deferred"))
	for _, c := range []struct {
		name, gap string
		text      []byte
		messages  int
	}{
		{"nothing", "ends before its end mark", nil, 0},
		{"cut before the end mark", "ends before its end mark", text[:len(text)-1], 4},
		{"cut in the middle", "ends before its end mark", text[:third+30], 2},
		{"end mark too early", "more data behind", slices.Concat(text[:third], []byte{0}, text[third:]), 2},
		{"not a listing", "no attribute name", []byte("220 relay.example ESMTP\r\n\x00"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := serve(t, func(conn net.Conn) { conn.Write(c.text); conn.Close() })
			s, err := Look(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			incomplete(t, s, c.messages, c.gap)
		})
	}
}

func TestLookDoesNotWaitForEver(t *testing.T) {
	text := construct(releases()[2], sample())
	in := serve(t, func(conn net.Conn) {
		t.Cleanup(func() { conn.Close() })
		conn.Write(text[:len(text)-1])
	})
	s, err := look(t.Context(), in, 50*time.Millisecond, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	incomplete(t, s, 4, "showq has sent nothing for 50ms")

	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if s, err = Look(soon, in); err != nil {
		t.Fatal(err)
	}
	incomplete(t, s, 4, "deadline exceeded")
}

func TestLookIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in := serve(t, func(conn net.Conn) {
		t.Cleanup(func() { conn.Close() })
		conn.Write(construct(releases()[2], sample())[:100])
		cancel()
	})
	s, err := Look(ctx, in)
	var e *postfix.Error
	if s != nil || !errors.As(err, &e) || e.Kind != postfix.Interrupted {
		t.Errorf("snapshot %v, error %v; want an interrupt", s, err)
	}
}

// TestLookWhileMessagesMove lists two messages twice, as showq does when they
// move on while it reads: the later place counts, and each counts once.
func TestLookWhileMessagesMove(t *testing.T) {
	queue := sample()
	requeued, held := queue[0].Clone(), queue[2].Clone()
	requeued.Queue, held.Queue = postfix.Deferred, postfix.Hold
	held.Recipients = held.Recipients[:1]
	text := construct(releases()[2], append(queue, requeued, held))
	s, err := Look(t.Context(), serve(t, func(conn net.Conn) { io.Copy(conn, bytes.NewReader(text)); conn.Close() }))
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != len(queue) {
		t.Errorf("%d messages, want %d", s.Len(), len(queue))
	}
	for _, want := range []*postfix.Message{requeued, held} {
		found := s.Find(want.ID)
		if len(found) != 1 || found[0].Queue != want.Queue || len(found[0].Recipients) != len(want.Recipients) {
			t.Errorf("message %s is %+v, want it once and in %v", want.ID, found, want.Queue)
		}
	}
	if n := s.Shape(postfix.Maildrop).Messages; n != 0 {
		t.Errorf("%d messages still in maildrop", n)
	}
}

func TestLookSaysWhatWasLeftOut(t *testing.T) {
	m := sample()[2]
	m.Recipients[0].Reason = strings.Repeat("x", 1000)
	text := construct(releases()[2], []*postfix.Message{m})
	in := serve(t, func(conn net.Conn) { conn.Write(text); conn.Close() })
	s, err := look(t.Context(), in, time.Minute, Limits{Text: 256, Recipients: 2})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, g := range s.Gaps[1:] {
		told = append(told, g.Text)
	}
	if diff := cmp.Diff([]string{"recipients of very wide messages were left out", "overlong texts were cut"}, told); diff != "" {
		t.Error(diff)
	}
}

// TestLongQueueDirectory has a spool whose socket no address of the kernel can
// name.
func TestLongQueueDirectory(t *testing.T) {
	p, err := forge.NewPrivate(filepath.Join(scratch(t), strings.Repeat("deep/", 20)), &forge.Spool{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Spool.Write(&forge.Message{Sender: "a@x.example", Recipients: []forge.Recipient{{Address: "b@y.example"}}, Arrival: time.Unix(1767225600, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := p.ServeShowq(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := Look(t.Context(), p.Instance())
	if err != nil || s.Len() != 1 {
		t.Fatalf("look: %v, %v", s, err)
	}
	_, err = Look(t.Context(), instance("/var/tmp/"+strings.Repeat("none/", 30)))
	var e *postfix.Error
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "start it with") {
		t.Errorf("a long path to nowhere gives %v", err)
	}
}
