package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunsCount runs go test for real on a module of one package each, for the
// stream of events is the go command's to define.
func TestRunsCount(t *testing.T) {
	for _, c := range []struct {
		name, body     string
		passed, failed int
		err, says      string
	}{
		{
			name:   "all pass, subtests instead of their parent",
			body:   `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Run("x", TestA); t.Run("y", TestA) }`,
			passed: 3,
		},
		{
			name:   "a failure",
			body:   `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Error("the reason") }`,
			passed: 1, failed: 1, err: "1 of 2 tests failed", says: "the reason",
		},
		{
			name:   "a skip is a failure",
			body:   `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Skip("no root") }`,
			passed: 1, failed: 1, err: "1 of 2 tests failed", says: "no root",
		},
		{
			name: "a failing subtest is one failure, not two",
			body: `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Fatal("deep") }) }`,
			says: "deep", failed: 1, err: "1 of 1 tests failed",
		},
		{
			name: "a parent that fails by itself, above subtests that pass",
			body: `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) {}); t.Error("afterwards") }`,
			says: "afterwards", passed: 1, failed: 1, err: "1 of 2 tests failed",
		},
		{
			name:   "a process that dies",
			body:   `func TestA(t *testing.T) {}; func TestB(t *testing.T) { os.Exit(3) }`,
			passed: 1, failed: 1, err: "1 of 2 tests failed", says: "TestB did not finish",
		},
		{
			name: "code that does not compile",
			body: `func TestA(t *testing.T) { nonsense }`,
			says: "nonsense", failed: 1, err: "1 of 1 tests failed",
		},
		{
			name: "no tests at all",
			body: ``,
			err:  "no test ran",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module planted\n\ngo 1.26.0\n")
			write(t, filepath.Join(dir, "a_test.go"), "package planted\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n"+
				"var _ = os.Exit\nvar _ testing.T\n\n"+strings.ReplaceAll(c.body, "; func", "\n\nfunc")+"\n")
			t.Chdir(dir)
			t.Setenv("GOFLAGS", "")
			counts := filepath.Join(dir, "counts")
			var out strings.Builder
			err := run(t.Context(), counts, []string{"./..."}, &out)
			if got := message(err); got != c.err {
				t.Errorf("error %q, want %q\n%s", got, c.err, out.String())
			}
			if !strings.Contains(out.String(), c.says) {
				t.Errorf("the report does not say %q:\n%s", c.says, out.String())
			}
			text, err := os.ReadFile(counts)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := string(text), fmt.Sprintf("%d %d\n", c.passed, c.failed); got != want {
				t.Errorf("counts %q, want %q\n%s", got, want, out.String())
			}
		})
	}
}

// TestStreamCutShort: a stream that stops before its package has ended must
// not pass, whatever it said until then.
func TestStreamCutShort(t *testing.T) {
	const stream = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"half way\n"}
`
	var out strings.Builder
	tl := newTally(&out)
	if err := tl.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if tl.passed != 1 || tl.failed != 1 {
		t.Errorf("%d passed, %d failed; want 1 and 1", tl.passed, tl.failed)
	}
	for _, want := range []string{"half way", "TestB did not finish"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, out.String())
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
