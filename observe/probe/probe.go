// Package probe asks the host about Postfix and about itself, one file a
// subject. It starts only programs that read, each by its absolute path, with
// an empty environment and a deadline.
//
// Invariant: a question that was not answered is a gap or an error that says
// why; no probe changes anything.
package probe

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// commandDirs is where Postfix's commands are looked for. PATH is not asked:
// holdfast runs as root, and what PATH names is whoever's choice.
var commandDirs = [...]string{"/usr/sbin", "/usr/local/sbin", "/usr/bin", "/opt/postfix/sbin", "/opt/local/sbin"}

// ErrNoPostfix is returned where the host has no Postfix commands.
var ErrNoPostfix = errors.New("no Postfix on this host: postconf is in none of the usual directories")

// commandDir returns the directory of Postfix's commands.
func commandDir(override string) (string, error) {
	dirs := commandDirs[:]
	if override != "" {
		dirs = []string{override}
	}
	for _, dir := range dirs {
		if st, err := os.Stat(filepath.Join(dir, "postconf")); err == nil && st.Mode().IsRegular() {
			return dir, nil
		}
	}
	return "", ErrNoPostfix
}

// commandTimeout bounds a program that reads a few small files.
const commandTimeout = 10 * time.Second

// run runs a prepared command with nothing of the caller's environment and
// returns its output. The error carries what the program said was fatal.
func run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if said := complaint(talk.String()); said != "" {
		return nil, errors.New(said)
	}
	return nil, err
}

// complaint picks the line that ended a Postfix program, else the last one.
func complaint(talk string) string {
	last := ""
	for line := range strings.SplitSeq(strings.TrimSpace(talk), "\n") {
		if _, text, ok := strings.Cut(line, ": fatal: "); ok {
			return text
		}
		last = line
	}
	return last
}
