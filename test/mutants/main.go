// Command mutants grades the tests: it plants one mistake after the other in a
// copy of the tree, mistakes that lose mail or the record of it, and runs the
// tests that should notice. A mistake that no test notices ends it with 1.
//
//	go run ./test/mutants            all of them
//	go run ./test/mutants NAME...    these only
//
// It never touches the tree itself. A mutant whose text is not in the source
// any more, or is there twice, is an error: it would grade nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long the tests of one mutant may take: some mutants hang.
const patience = 8 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, names []string) int {
	survivors := 0
	for _, m := range mutants() {
		if len(names) > 0 && !slices.Contains(names, m.name) {
			continue
		}
		began := time.Now()
		by, err := grade(ctx, ".", m)
		switch {
		case err != nil:
			fmt.Fprintf(os.Stderr, "mutants: %s: %v\n", m.name, err)
			return 1
		case by == "":
			survivors++
			fmt.Printf("SURVIVED  %-32s %s, %.0f s\n", m.name, m.file, time.Since(began).Seconds())
		default:
			fmt.Printf("caught    %-32s by %s, %.0f s\n", m.name, by, time.Since(began).Seconds())
		}
	}
	if survivors > 0 {
		fmt.Printf("%d mutants survived\n", survivors)
		return 1
	}
	return 0
}

// grade runs the tests of a mutant and returns the first test that failed, ""
// where none did.
func grade(ctx context.Context, tree string, m mutant) (string, error) {
	dir, err := os.MkdirTemp("/tmp", "holdfast-mutant-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := copyTree(ctx, tree, dir); err != nil {
		return "", err
	}
	if err := m.plant(dir); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if out, err := command(ctx, dir, "build", "./...").CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not build, so that no test is needed to notice: %w\n%s", err, out)
	}
	out, err := command(ctx, dir, slices.Concat([]string{"test", "-count=1", "-vet=off"}, m.tests)...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case !errors.As(err, &exit):
		return "", err
	}
	return failed(string(out)), nil
}

func command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	return cmd
}

// failed finds the name of the first test that failed.
func failed(out string) string {
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok {
			name, _, _ = strings.Cut(name, " ")
			return name
		}
	}
	return "a test that did not end"
}

// plant puts the mistake into a copy of the tree.
func (m mutant) plant(tree string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	text, err := root.ReadFile(m.file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return fmt.Errorf("%s has %d places that read %q", m.file, n, m.old)
	}
	return root.WriteFile(m.file, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600)
}

// copyTree copies what go needs.
func copyTree(ctx context.Context, from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	args := []string{"-a", "-t", to, "--"}
	for _, e := range entries {
		if !slices.Contains([]string{".git", ".cache", "bin"}, e.Name()) {
			args = append(args, filepath.Join(from, e.Name()))
		}
	}
	if out, err := exec.CommandContext(ctx, "cp", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the tree: %w\n%s", err, out)
	}
	return nil
}
