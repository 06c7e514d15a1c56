package durable

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the writer that is killed: durability can only be
// seen from outside of a process that died.
const roleVar = "DURABLE_TEST_ROLE"

// theFile is what every role works on, in its working directory.
const theFile = "state"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "writer":
		writer()
	case "once":
		once(func() error { return Replace(theFile, version(2), 0o640) })
	case "append":
		once(appendTwice)
	case "create":
		once(createOne)
	case "holder":
		holder()
	default:
		os.Exit(m.Run())
	}
}

func say(text string) {
	if _, err := fmt.Println(text); err != nil {
		os.Exit(3)
	}
}

// writer replaces a file for ever, and says so after each time.
func writer() {
	for i := 1; ; i++ {
		if err := Replace(theFile, version(i), 0o640); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		say(strconv.Itoa(i))
	}
}

// appendTwice appends to a file, which makes it first.
func appendTwice() error {
	a, err := OpenAppend(theFile, 0o640)
	if err != nil {
		return err
	}
	for i := range 2 {
		if _, err := a.Append(version(i)); err != nil {
			return err
		}
	}
	return a.Close()
}

// createOne makes a file piece by piece.
func createOne() error {
	f, err := Create(theFile, 0o640)
	if err != nil {
		return err
	}
	if _, err := f.Write(version(2)); err != nil {
		return err
	}
	return f.Commit()
}

// once writes on one thread, so that strace counts its calls only.
func once(write func() error) {
	runtime.LockOSThread()
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func holder() {
	l, err := TryLock(theFile)
	if err != nil {
		say(err.Error())
		os.Exit(1)
	}
	say("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = l.Unlock()
}

// version is content that proves its own wholeness: a number, filler of a
// length that differs from number to number, and a digest over both.
func version(i int) []byte {
	body := fmt.Appendf(nil, "%d\n%s\n", i, strings.Repeat("x", 10_000+i*977%90_000))
	sum := sha256.Sum256(body)
	return fmt.Appendf(body, "%x\n", sum)
}

// versionOf returns the number of a whole content.
func versionOf(t *testing.T, content []byte) int {
	t.Helper()
	line, _, _ := bytes.Cut(content, []byte("\n"))
	i, err := strconv.Atoi(string(line))
	if err != nil || !bytes.Equal(content, version(i)) {
		t.Fatalf("%d bytes are neither old nor new content (they begin with %.40q)", len(content), content)
	}
	return i
}

func readVersion(t *testing.T, path string) int {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return versionOf(t, content)
}

func role(ctx context.Context, name, dir string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env, cmd.Dir = append(os.Environ(), roleVar+"="+name), dir
	return cmd
}

func TestKilledWriterLeavesOldOrNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), theFile)
	if err := Replace(path, version(0), 0o640); err != nil {
		t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(1, 2))
	finished := 0
	for range 60 {
		cmd := role(t.Context(), "writer", filepath.Dir(path))
		said, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(said)
		lines.Scan() // it works
		time.Sleep(time.Duration(dice.IntN(8_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		last := lines.Text()
		for lines.Scan() {
			last = lines.Text()
		}
		_ = cmd.Wait()
		promised, err := strconv.Atoi(last)
		if err != nil {
			t.Fatalf("the writer said %q", last)
		}
		if got := readVersion(t, path); got < promised {
			t.Fatalf("Replace had returned for version %d, and the file holds %d", promised, got)
		}
		finished += promised
	}
	if finished <= 60 {
		t.Errorf("only %d versions were written between the kills: the test proves little", finished)
	}
	if err := Sweep(filepath.Dir(path), 0); err != nil {
		t.Error(err)
	}
	if names := list(t, filepath.Dir(path)); !slices.Equal(names, []string{"state"}) {
		t.Errorf("left behind: %v", names)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// traced runs the writer "once" under strace and returns the trace of the
// calls that touch files.
func traced(t *testing.T, dir string, options ...string) (trace string, code int) {
	t.Helper()
	return tracedAs(t, "once", dir, options...)
}

func tracedAs(t *testing.T, role, dir string, options ...string) (trace string, code int) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trace")
	argv := slices.Concat([]string{"-f", "-qq", "-y", "-o", out}, options, []string{os.Args[0]})
	cmd := exec.CommandContext(t.Context(), "strace", argv...)
	cmd.Env, cmd.Dir = append(os.Environ(), roleVar+"="+role), dir
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run strace, which this test needs: %v", err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// inTurn finds calls of a trace in their order, each about something in dir.
func inTurn(t *testing.T, trace, dir string, steps ...string) {
	t.Helper()
	at := 0
	for _, step := range steps {
		var line string
		for lines := strings.SplitAfter(trace[at:], "\n"); len(lines) > 0; lines = lines[1:] {
			at += len(lines[0])
			if strings.Contains(lines[0], step) && strings.Contains(lines[0], dir) {
				line = lines[0]
				break
			}
		}
		if line == "" {
			t.Fatalf("no %q in its turn:\n%s", step, trace)
		}
	}
}

// TestAppendSyncsEachTime: what Append has returned is on disk, and so is the
// name of the file.
func TestAppendSyncsEachTime(t *testing.T) {
	dir := t.TempDir()
	trace, code := tracedAs(t, "append", dir, "-e", "trace=openat,write,pwrite64,fsync,close")
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	file := filepath.Join(dir, theFile) + ">"
	inTurn(t, trace, dir, "O_CREAT", "fsync(")
	inTurn(t, trace, file, "write", "fsync(", "write", "fsync(")
	if !regexp.MustCompile(`fsync\([0-9]+<` + regexp.QuoteMeta(dir) + `>`).MatchString(trace) {
		t.Errorf("the directory is not synced:\n%s", trace)
	}
}

// TestCreateSyncsBeforeAndAfterTheName: the content before it has a name, the
// name before Commit returns.
func TestCreateSyncsBeforeAndAfterTheName(t *testing.T) {
	dir := t.TempDir()
	trace, code := tracedAs(t, "create", dir, "-e", "trace=openat,write,fsync,renameat2,close")
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	inTurn(t, trace, dir, "write(", "fsync(", "renameat2(", "fsync(")
	_, named, _ := strings.Cut(trace, "renameat2(")
	if !regexp.MustCompile(`fsync\([0-9]+<` + regexp.QuoteMeta(dir) + `>`).MatchString(named) {
		t.Errorf("the directory is not synced behind the name:\n%s", trace)
	}
}

// TestOrderOfSyncs looks at the calls themselves. A kill never shows a missing
// fsync, and on ext4 and XFS not even a power cut shows a missing fsync of the
// directory.
func TestOrderOfSyncs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, theFile)
	if err := os.WriteFile(path, version(1), 0o600); err != nil {
		t.Fatal(err)
	}
	trace, code := traced(t, filepath.Dir(path), "-e", "trace=openat,write,fchmod,fsync,renameat,renameat2,close")
	if code != 0 || readVersion(t, path) != 2 {
		t.Fatalf("exit %d, version %d", code, readVersion(t, path))
	}
	inTurn(t, trace, dir, "O_CREAT|O_EXCL", "write(", "fchmod(", "fsync(", "renameat", "fsync(")
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// steps are the calls that Replace makes on the thread that it runs on.
func steps() []string {
	return []string{"openat", "write", "fchmod", "fsync", "close", "renameat", "unlinkat"}
}

func TestKillBeforeEachCall(t *testing.T) {
	killed := 0
	for _, call := range steps() {
		for n := 1; ; n++ {
			path := filepath.Join(t.TempDir(), theFile)
			if err := os.WriteFile(path, version(1), 0o600); err != nil {
				t.Fatal(err)
			}
			_, code := traced(t, filepath.Dir(path), "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n))
			got := readVersion(t, path)
			if code == 0 { // there is no n-th call of this kind
				if got != 2 {
					t.Fatalf("%s %d: it ended well, and the file holds version %d", call, n, got)
				}
				break
			}
			if got != 1 && got != 2 {
				t.Fatalf("%s %d: version %d", call, n, got)
			}
			killed++
		}
	}
	if killed < 8 {
		t.Errorf("killed only %d times", killed)
	}
}

// TestFailedCalls: what fails is said, the old content stays, and nothing
// unfinished is left.
func TestFailedCalls(t *testing.T) {
	for _, c := range []struct {
		call, path, with string
		version          int
	}{
		{"write", "", "ENOSPC", 1},
		{"fsync", "", "EIO:when=1", 1},
		{"fsync", "", "EIO:when=2", 2}, // the directory: the new content is in place, and the error says it may not last
		{"fchmod", "", "EPERM", 1},
		{"renameat", "", "EDQUOT", 1},
	} {
		t.Run(c.call+" "+c.with, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, theFile)
			if err := os.WriteFile(path, version(1), 0o600); err != nil {
				t.Fatal(err)
			}
			_, code := traced(t, filepath.Dir(path), "-e", "trace="+c.call, "-e", "inject="+c.call+":error="+c.with)
			if code != 1 {
				t.Errorf("exit %d", code)
			}
			if got := readVersion(t, path); got != c.version {
				t.Errorf("version %d", got)
			}
			if names := list(t, dir); !slices.Equal(names, []string{"state"}) {
				t.Errorf("left behind: %v", names)
			}
		})
	}
}

func TestReplaceRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{
		filepath.Join(dir, "missing", theFile), dir + "/.", dir + "/..", "/", filepath.Join(dir, "x"+unfinished),
	} {
		if err := Replace(path, nil, 0o600); err == nil {
			t.Errorf("%q was replaced", path)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "a"), nil, 0o600); !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EEXIST) {
		t.Errorf("a directory was replaced: %v", err)
	}
	if names := list(t, dir); !slices.Equal(names, []string{"a"}) {
		t.Errorf("left behind: %v", names)
	}
}

// A link is replaced, and what it points to stays as it was.
func TestReplaceDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, []byte("precious"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	if err := Replace(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(target)
	st, statErr := os.Lstat(link)
	if err != nil || statErr != nil || string(got) != "precious" || !st.Mode().IsRegular() {
		t.Errorf("target %q, link %v, %v, %v", got, st.Mode(), err, statErr)
	}
}

func TestSweepTakesOnlyOldUnfinishedFiles(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-2 * time.Hour)
	for name, when := range map[string]time.Time{
		".state.A" + unfinished: old, ".state.B" + unfinished: time.Now(), "state": old, ".hidden": old, "a" + unfinished: old,
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, when, when)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir, time.Hour); err != nil {
		t.Fatal(err)
	}
	want := []string{".hidden", ".state.B" + unfinished, "a" + unfinished, "state"}
	if names := list(t, dir); !slices.Equal(names, want) {
		t.Errorf("left: %v, want %v", names, want)
	}
}

func TestMkdirAll(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	root := t.TempDir()
	path := filepath.Join(root, "a", "b", "c")
	for range 2 { // what is there already is no error
		if err := MkdirAll(path, 0o751); err != nil {
			t.Fatal(err)
		}
	}
	for p := path; p != root; p = filepath.Dir(p) {
		if st, err := os.Stat(p); err != nil || st.Mode().Perm() != 0o751 {
			t.Errorf("%s: %v, %v", p, st.Mode(), err)
		}
	}
	file, dangling := filepath.Join(root, "file"), filepath.Join(root, "dangling")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink("nowhere", dangling)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, filepath.Join(file, "x"), dangling} {
		if err := MkdirAll(p, 0o700); err == nil {
			t.Errorf("%s became a directory", p)
		}
	}
}

func TestMkdirForOwnDirectoryAndNoLink(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "state", "probes")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 65534, 65534
	}
	for range 2 {
		if err := MkdirFor(path, 0o700, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || int(st.Uid) != uid || int(st.Gid) != gid || st.Mode&0o7777 != 0o700 {
		t.Errorf("owner %d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := MkdirFor(link, 0o777, uid, gid); err == nil {
		t.Error("a link was taken for the directory")
	}
}

func TestLockNamesItsHolderAndEndsWithIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), theFile)
	cmd := role(t.Context(), "holder", filepath.Dir(path))
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil { // it holds until its input ends
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, err = TryLock(path)
	var held *HeldError
	if !errors.As(err, &held) || !strings.Contains(held.Holder, strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("error %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := AcquireLock(ended, path); !errors.As(err, &held) {
		t.Errorf("waiting with no time left: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	l, err := AcquireLock(t.Context(), path)
	if err != nil {
		t.Fatalf("after the holder's death: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Error("the lock file is gone")
	}
}

// TestOneHolderAtATime: a counter that is read, incremented and replaced under
// the lock by many loses no step, though some remove the lock file meanwhile.
func TestOneHolderAtATime(t *testing.T) {
	dir := t.TempDir()
	lock, counter := filepath.Join(dir, "lock"), filepath.Join(dir, "counter")
	if err := Replace(counter, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	const workers, rounds = 6, 25
	failed := make(chan error, workers)
	for range workers {
		go func() { failed <- count(t.Context(), lock, counter, rounds) }()
	}
	var err error
	for range workers {
		err = errors.Join(err, <-failed)
	}
	got, readErr := os.ReadFile(counter)
	if err != nil || readErr != nil || string(got) != strconv.Itoa(workers*rounds) {
		t.Errorf("counted %s of %d, %v, %v", got, workers*rounds, err, readErr)
	}
}

func count(ctx context.Context, lock, counter string, rounds int) error {
	for i := range rounds {
		l, err := AcquireLock(ctx, lock)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(counter)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(text))
		if err != nil {
			return err
		}
		if err := Replace(counter, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
			return err
		}
		if i%10 == 9 { // the last act of a holder: the next ones must not meet on the old file
			if err := os.Remove(lock); err != nil {
				return err
			}
		}
		if err := l.Unlock(); err != nil {
			return err
		}
	}
	return nil
}
