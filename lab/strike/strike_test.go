package strike

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// run runs a shell script that is struck.
func run(t *testing.T, p Point, script string) (Report, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report")
	env, err := Env(p, path)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "/bin/sh", "-c", script)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, err := ReadReport(path)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(out)
}

// shell is what /bin/sh is called when it runs.
func shell(t *testing.T) string {
	t.Helper()
	path, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(path)
}

func TestStrike(t *testing.T) {
	const script = "echo one; echo two; /bin/echo three; echo four; exit 7"
	sh := shell(t)
	tests := []struct {
		point  Point
		struck bool
		code   int
		said   string
	}{
		{Point{}, false, 7, "one two three four"},
		{Point{Part: sh, Kind: "write", N: 2}, true, 137, "one"},
		{Point{Part: sh, Kind: "write", N: 3}, true, 137, "one two three"},
		{Point{Part: sh, Kind: "write", N: 9}, false, 7, "one two three four"},
		{Point{Part: "echo", Kind: "write", N: 1}, true, 7, "one two four"},
		{Point{Part: "echo", Kind: "write", N: 1, All: true}, true, 137, "one two"},
		{Point{Part: sh, Kind: "execve", N: 1}, true, 7, "one two four"},
		{Point{Part: sh, Kind: "wait", N: 1}, true, 137, "one two three"},
		{Point{Part: "echo", Kind: "write", N: 1, Errno: syscall.ENOSPC}, true, 7, "one two four"},
		{Point{Part: sh, Kind: "write", N: 2, Errno: syscall.EIO, Onwards: true}, true, 7, "one three"},
	}
	for _, test := range tests {
		t.Run(test.point.String(), func(t *testing.T) {
			r, out := run(t, test.point, script)
			var said []string
			for line := range strings.Lines(out) {
				if !strings.Contains(line, ":") && !strings.Contains(line, "Killed") { // no complaint
					said = append(said, strings.TrimSpace(line))
				}
			}
			if got := strings.Join(said, " "); r.Struck != test.struck || r.Code != test.code || got != test.said {
				t.Errorf("struck %v, exit %d, said %q; want %v, %d, %q\n%s", r.Struck, r.Code, got, test.struck, test.code, test.said, out)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	r, _ := run(t, Point{}, "echo a; echo b; /bin/echo c; /bin/echo d; :")
	if sh := shell(t); r.Calls[sh]["write"] != 2 || r.Calls["echo"]["write"] != 2 || r.Calls[sh]["execve"] != 2 {
		t.Errorf("calls %v", r.Calls)
	}
}

func TestKindsAreAll(t *testing.T) {
	listed := Kinds()
	if len(listed) != len(kinds) {
		t.Errorf("%d kinds are listed and there are %d", len(listed), len(kinds))
	}
	for _, k := range listed {
		if len(kinds[k]) == 0 {
			t.Errorf("kind %q has no calls", k)
		}
	}
	if n := len(filterOf()); n > unix.BPF_MAXINSNS {
		t.Errorf("the filter has %d instructions", n)
	}
}
