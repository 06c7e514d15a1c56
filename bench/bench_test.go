package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/lab/forge"
	"holdfast/observe"
	"holdfast/observe/spool"
	"holdfast/postfix"
	"holdfast/present"
)

// The environment of a measuring run; scripts/bench sets it.
const (
	dirEnv      = "HOLDFAST_BENCH_DIR"      // a corpus to use and to leave, instead of a temporary one
	messagesEnv = "HOLDFAST_BENCH_MESSAGES" // how many messages, 10,000 if not set
	logBytesEnv = "HOLDFAST_BENCH_LOG"      // how large the largest mail log, 50,000,000 bytes if not set
	programEnv  = "HOLDFAST_BENCH_PROGRAM"  // the holdfast to measure, ../bin/holdfast if not set
)

// queues is the pair of corpora that all benchmarks of a run share.
var queues = sync.OnceValues(func() (*pair, error) {
	n := 10_000
	if s := os.Getenv(messagesEnv); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			return nil, fmt.Errorf("%s: %w", messagesEnv, err)
		}
	}
	p := &pair{dir: os.Getenv(dirEnv)}
	var err error
	if p.dir == "" {
		if p.dir, err = temporary(); err != nil {
			return nil, err
		}
		leftover.Store(&p.dir)
	}
	if p.full, err = Open(filepath.Join(p.dir, "full"), n); err != nil {
		return nil, err
	}
	p.empty, err = Open(filepath.Join(p.dir, "empty"), 0)
	return p, err
})

type pair struct {
	dir         string
	full, empty *Corpus
}

// leftover is the temporary directory of the corpora, once there is one.
var leftover atomic.Pointer[string]

// temporary makes a directory that the mail owner may enter, on a real file
// system: /tmp may be memory.
func temporary() (string, error) {
	dir, err := os.MkdirTemp("/var/tmp", "holdfast-bench-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func TestMain(m *testing.M) {
	if os.Getenv(MeasureEnv) != "" {
		if err := MeasureMain(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if dir := leftover.Load(); dir != nil {
		os.RemoveAll(*dir)
	}
	os.Exit(code)
}

func corpora(b *testing.B) *pair {
	b.Helper()
	p, err := queues()
	if err != nil {
		b.Fatal(err)
	}
	runtime.GC() // what an earlier benchmark left is not this one's to collect
	return p
}

// workers is what a Reader takes where it is not told otherwise.
func workers() int { return max(4, runtime.GOMAXPROCS(0)) }

// reportCPU reports how much processor time this process takes from now to the
// call of the function that it returns.
func reportCPU(b *testing.B) func() {
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkFloor(b *testing.B) {
	c := corpora(b).full
	floor, err := NewFloor(c)
	if err != nil {
		b.Fatal(err)
	}
	defer floor.Close()
	defer reportCPU(b)()
	for b.Loop() {
		n, err := floor.Read(workers())
		if err != nil || n != 2*c.Messages {
			b.Fatalf("read %d files, want %d: %v", n, 2*c.Messages, err)
		}
	}
}

// answer is what "holdfast queue --by cause" computes.
type answer struct {
	messages, recipients int
	bytes                int64
	causes               map[postfix.Cause]int
}

// count counts as the command does: on all processors.
func count(ctx context.Context, s *observe.Snapshot) (answer, error) {
	parts, err := present.Scan(ctx, s,
		func(int) (*answer, error) { return &answer{causes: make(map[postfix.Cause]int)}, nil },
		func(a *answer, _ int, m *postfix.Message) error {
			a.messages++
			a.bytes += m.Size
			for i := range m.Recipients {
				a.recipients++
				a.causes[m.Recipients[i].Cause]++
			}
			return nil
		})
	sum := answer{causes: make(map[postfix.Cause]int)}
	for _, a := range parts {
		sum.messages += a.messages
		sum.recipients += a.recipients
		sum.bytes += a.bytes
		for c, n := range a.causes {
			sum.causes[c] += n
		}
	}
	return sum, err
}

func (a answer) check(c *Corpus) error {
	if a.messages != c.Messages || a.recipients != c.Recipients || c.Messages > 1000 && len(a.causes) < 10 || a.causes[postfix.NoCause] > 0 {
		return fmt.Errorf("saw %d messages, %d recipients and causes %v; the corpus has %d and %d", a.messages, a.recipients, a.causes, c.Messages, c.Recipients)
	}
	return nil
}

func BenchmarkFirstLook(b *testing.B) {
	c := corpora(b).full
	observe.TuneCollector() // as the command does
	defer reportCPU(b)()
	for b.Loop() {
		r, err := spool.NewReader(c.Private.Instance(), spool.Options{})
		if err != nil {
			b.Fatal(err)
		}
		s, err := r.Look(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		a, err := count(b.Context(), s)
		if err == nil {
			err = a.check(c)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSecondLook(b *testing.B) {
	c := corpora(b).full
	r, err := spool.NewReader(c.Private.Instance(), spool.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := r.Look(b.Context()); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	defer reportCPU(b)()
	for b.Loop() {
		s, err := r.Look(b.Context())
		if err != nil || s.Len() != c.Messages {
			b.Fatalf("look again: %v", err)
		}
	}
}

// product is the holdfast that is measured.
func product() string {
	if program := os.Getenv(programEnv); program != "" {
		return program
	}
	return "../bin/holdfast"
}

// holdfast prepares the product's own command on a corpus.
func holdfast(ctx context.Context, c *Corpus) *exec.Cmd {
	return exec.CommandContext(ctx, product(), "-c", c.Private.ConfigDir, "queue", "--by", "cause", "-o", "json")
}

// benchProcess measures a command and returns what a run took.
func benchProcess(b *testing.B, cmd *exec.Cmd, needPeak bool) time.Duration {
	b.Helper()
	var spent, cpu time.Duration
	var peak int64
	for b.Loop() {
		cost, err := Measure(b.Context(), cmd)
		if err != nil {
			b.Fatal(err)
		}
		spent += cost.Time
		cpu += cost.CPU
		peak = max(peak, cost.PeakRSS)
	}
	// The starting of the measuring process is not the command's.
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/op")
	if needPeak && peak == 0 {
		b.Fatal("the peak of memory cannot be told")
	}
	if needPeak {
		b.ReportMetric(float64(peak), "peak-bytes")
	}
	return spent / time.Duration(b.N)
}

func BenchmarkQueueByCause(b *testing.B) {
	benchProcess(b, holdfast(b.Context(), corpora(b).full), true)
}

func BenchmarkQueueByCauseEmpty(b *testing.B) {
	benchProcess(b, holdfast(b.Context(), corpora(b).empty), true)
}

func BenchmarkPostqueue(b *testing.B) {
	benchProcess(b, corpora(b).full.Private.Command(b.Context(), "postqueue", "-j"), false)
}

func BenchmarkQshape(b *testing.B) {
	benchProcess(b, corpora(b).full.Private.Command(b.Context(), "qshape", "deferred"), false)
}

// The tests below are about the measuring, not about the speed.

func small(t *testing.T, n int) *Corpus {
	t.Helper()
	dir, err := temporary()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, err := Open(filepath.Join(dir, "corpus"), n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEverybodySeesTheSameQueue holds floor, reader, postqueue and qshape to
// the same numbers: what is compared must be the same work.
func TestEverybodySeesTheSameQueue(t *testing.T) {
	c := small(t, 1500)
	floor, err := NewFloor(c)
	if err != nil {
		t.Fatal(err)
	}
	defer floor.Close()
	if n, err := floor.Read(4); err != nil || n != 2*c.Messages {
		t.Errorf("the floor reads %d files, want %d: %v", n, 2*c.Messages, err)
	}
	r, err := spool.NewReader(c.Private.Instance(), spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := r.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a, err := count(t.Context(), s)
		if err == nil {
			err = a.check(c)
		}
		if err != nil {
			t.Error(err)
		}
		if len(s.Gaps)+len(s.Strays) > 0 {
			t.Errorf("gaps %v, strays %v in a sound queue", s.Gaps, s.Strays)
		}
	}
	out, err := c.Private.Command(t.Context(), "postqueue", "-j").Output()
	if err != nil || strings.Count(string(out), "\n") != c.Messages || strings.Count(string(out), `"delay_reason"`) != c.Recipients {
		t.Errorf("postqueue lists %d messages and %d reasons, want %d and %d: %v", strings.Count(string(out), "\n"), strings.Count(string(out), `"delay_reason"`), c.Messages, c.Recipients, err)
	}
	out, err = c.Private.Command(t.Context(), "qshape", "deferred").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "TOTAL" && f[1] != strconv.Itoa(c.Recipients) {
			t.Errorf("qshape counts %s recipients, want %d", f[1], c.Recipients)
		}
	}
	if !strings.Contains(string(out), "TOTAL") {
		t.Errorf("qshape prints no total:\n%s", out)
	}
}

func TestCorpusIsTheSameAgain(t *testing.T) {
	why := reasons()
	distinct, domainsSeen, single := make(map[string]bool), make(map[string]bool), 0
	for i := range 5000 {
		m := message(i, why)
		if !bytes.Equal(forge.Encode(m), forge.Encode(message(i, why))) {
			t.Fatalf("message %d is another one the second time", i)
		}
		if size := len(forge.Encode(m)); size < 1000 || size > 25_000 {
			t.Errorf("message %d has %d bytes, want 1 to 20 kB and a little", i, size)
		}
		for _, r := range m.Recipients {
			distinct[r.Deferred.Text], domainsSeen[postfix.DomainOf(r.Address)] = true, true
			if strings.ContainsAny(r.Deferred.Text, "{}") {
				t.Fatalf("a placeholder was left in %q", r.Deferred.Text)
			}
		}
		if len(m.Recipients) == 1 {
			single++
		}
	}
	if len(why) != 30 || len(domainsSeen) < 150 || len(distinct) < 3000 || single < 4500 {
		t.Errorf("%d reasons in %d wordings, %d domains, %d of 5000 messages with one recipient", len(why), len(distinct), len(domainsSeen), single)
	}
}

func TestCorpusOfAnotherSizeIsRefused(t *testing.T) {
	c := small(t, 10)
	dir := filepath.Dir(c.Private.ConfigDir)
	if again, err := Open(dir, 10); err != nil || again.Recipients != c.Recipients {
		t.Errorf("open it again: %+v, %v", again, err)
	}
	if _, err := Open(dir, 20); err == nil {
		t.Error("a corpus of 10 messages was taken for one of 20")
	}
}

func TestCorpusWhereThePostfixUserCannotGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "corpus"), 1); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v, want one that names %s", err, dir)
	}
}

// TestPeakIsTheCommandsOwn gives the measuring process a parent that is much
// larger than the command.
func TestPeakIsTheCommandsOwn(t *testing.T) {
	ballast := make([]byte, 256<<20)
	for i := range ballast {
		ballast[i] = byte(i)
	}
	// A shell that fills 64 MB of memory, and one that does not.
	large, err := Measure(t.Context(), exec.Command("/bin/sh", "-c", "x=$(head -c 30000000 /dev/zero | tr '\\0' x); true"))
	if err != nil {
		t.Fatal(err)
	}
	tiny, err := Measure(t.Context(), exec.Command("/bin/true"))
	if err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(ballast)
	if large.PeakRSS < 30<<20 || large.PeakRSS > 200<<20 {
		t.Errorf("a shell with 30 MB of text had a peak of %d bytes", large.PeakRSS)
	}
	if tiny.PeakRSS != 0 || tiny.Time <= 0 || large.CPU <= 0 {
		t.Errorf("true(1) cost %+v, whose peak is below its parent's and cannot be told; the shell cost %+v", tiny, large)
	}
	if _, err := Measure(t.Context(), exec.Command("/bin/false")); err == nil {
		t.Error("the failure of a measured command was not reported")
	}
}
