package probe

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// listen makes a socket that nobody accepts from, as one of a service that
// does not start.
func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// managed is a spool with a socket whose connections go to serve, and a host
// on which process 812 is the master.
func managed(t *testing.T, serve func(net.Conn), processes map[string]string) (procfs, postfix.Instance, observe.Master) {
	t.Helper()
	// Socket names are short, temporary directories are not.
	dir, err := os.MkdirTemp("/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if serve != nil {
		l := listen(t, filepath.Join(dir, "public", "qmgr"))
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				serve(conn)
			}
		}()
	}
	if processes == nil {
		processes = make(map[string]string)
	}
	processes["stat"] = "btime 1700000000\n"
	return procfs(tree(t, processes)), postfix.Instance{QueueDir: dir, MailOwner: "postfix"}, observe.Master{Known: true, Running: true, PID: 812}
}

// well is what a queue manager does with a request.
func well(got chan<- string) func(net.Conn) {
	return func(conn net.Conn) {
		b := make([]byte, 8)
		n, _ := conn.Read(b)
		_ = conn.Close()
		got <- string(b[:n])
	}
}

func TestManagerThatAnswers(t *testing.T) {
	got := make(chan string, 1)
	p, in, master := managed(t, well(got), map[string]string{
		"900/stat": statLine(900, "qmgr", "S", 811, 5), // of another instance
		"901/stat": statLine(901, "qmgr", "S", 812, 7),
		"902/stat": statLine(902, "smtp", "S", 812, 8),
	})
	m, gaps := askManager(t.Context(), p, in, master)
	if !m.Known || m.State != "well" || m.PID != 901 || !m.Started.Equal(time.Unix(1700000007, 0)) || m.Latency <= 0 || len(gaps) != 0 {
		t.Errorf("%+v, gaps %v", m, gaps)
	}
	// Any letter is a request: W, I, D, A and F start scans.
	if text := <-got; text != "\x00" {
		t.Errorf("it was sent %q", text)
	}
}

func TestManagerThatIsSilent(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // when the cases are over
	hangs := func(conn net.Conn) {
		go func() {
			<-release
			_ = conn.Close()
		}()
	}
	for name, c := range map[string]struct {
		processes map[string]string
		state     string
		pid       int
	}{
		"stopped":     {map[string]string{"901/stat": statLine(901, "qmgr", "T", 812, 7)}, "stopped", 901},
		"in a wait":   {map[string]string{"901/stat": statLine(901, "qmgr", "D", 812, 7)}, "silent", 901},
		"throttled":   {map[string]string{"901/stat": statLine(901, "qmgr", "S", 1, 7)}, "silent", 0},
		"of old name": {map[string]string{"901/stat": statLine(901, "oqmgr", "t", 812, 7)}, "stopped", 901},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, in, master := managed(t, hangs, c.processes)
			m, gaps := askManager(t.Context(), p, in, master)
			if !m.Known || m.State != c.state || m.PID != c.pid || len(gaps) != 0 {
				t.Errorf("%+v, gaps %v", m, gaps)
			}
		})
	}
}

func TestManagerThatIsAbsent(t *testing.T) {
	// A socket whose listener has gone stays behind.
	p, in, master := managed(t, nil, nil)
	socket := filepath.Join(in.QueueDir, "public", "qmgr")
	for _, left := range []bool{false, true} {
		if left {
			l := listen(t, socket)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
		}
		if m, gaps := askManager(t.Context(), p, in, master); !m.Known || m.State != "absent" || len(gaps) != 0 {
			t.Errorf("left %v: %+v, gaps %v", left, m, gaps)
		}
	}
}

// Without a master nobody is asked, even where somebody would listen.
func TestManagerWithoutMaster(t *testing.T) {
	p, in, _ := managed(t, func(net.Conn) { t.Error("somebody connected") }, nil)
	if m, _ := askManager(t.Context(), p, in, observe.Master{Known: true}); m.State != "absent" || !m.Known {
		t.Errorf("%+v", m)
	}
}

func TestManagerThatCannotBeAsked(t *testing.T) {
	p, in, master := managed(t, nil, nil)
	public := filepath.Join(in.QueueDir, "public")
	if err := errors.Join(os.Mkdir(public, 0o755), unix.Mkfifo(filepath.Join(public, "qmgr"), 0o600)); err != nil {
		t.Fatal(err)
	}
	m, gaps := askManager(t.Context(), p, in, master)
	if m.Known || len(gaps) != 1 || !strings.Contains(gaps[0].Text, "named pipe") || gaps[0].Hint == "" {
		t.Errorf("a pipe: %+v, gaps %v", m, gaps)
	}
	talks, in2, master := managed(t, func(conn net.Conn) {
		_, _ = conn.Write([]byte("220 hello\r\n"))
		_ = conn.Close()
	}, nil)
	if m, gaps := askManager(t.Context(), talks, in2, master); m.Known || len(gaps) != 1 {
		t.Errorf("some other program: %+v, gaps %v", m, gaps)
	}
}

// The name of the socket may be longer than the kernel takes.
func TestManagerBehindALongName(t *testing.T) {
	got := make(chan string, 1)
	p, in, master := managed(t, well(got), nil)
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := errors.Join(os.Mkdir(long, 0o755), os.Symlink(filepath.Join(in.QueueDir, "public"), filepath.Join(long, "public"))); err != nil {
		t.Fatal(err)
	}
	in.QueueDir = long
	if m, gaps := askManager(t.Context(), p, in, master); m.State != "well" {
		t.Errorf("%+v, gaps %v", m, gaps)
	}
}

// More connections than a socket takes is the answer of one that has not
// served for long.
func TestManagerWithAFullBacklog(t *testing.T) {
	p, in, master := managed(t, nil, nil)
	public := filepath.Join(in.QueueDir, "public")
	if err := os.Mkdir(public, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	socket := filepath.Join(public, "qmgr")
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for err == nil {
		var conn net.Conn
		if conn, err = dialUnix(t.Context(), socket); err == nil {
			conns = append(conns, conn)
		}
	}
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("the socket was full: %v", err)
	}
	if m, _ := askManager(t.Context(), p, in, master); m.State != "silent" || !m.Known {
		t.Errorf("%+v", m)
	}
}
