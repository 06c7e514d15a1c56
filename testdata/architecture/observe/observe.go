// Package observe is planted: what may be run, and what may not.
package observe

import (
	"context"
	"os/exec"
	"path/filepath"
)

const postmulti = "/usr/sbin/postmulti"

func right(ctx context.Context, dir string) []*exec.Cmd {
	return []*exec.Cmd{
		exec.CommandContext(ctx, "postconf", "-c", dir, "-n"),
		exec.CommandContext(ctx, filepath.Join(dir, "postqueue"), "-j"),
		exec.CommandContext(ctx, postmulti, "-l"),
		exec.CommandContext(ctx, "/usr/bin/journalctl", "--unit=postfix", "-o", "json"),
		exec.CommandContext(ctx, "postmap", append([]string{"-q"}, dir)...),
	}
}

func wrong(ctx context.Context, program string) {
	_ = exec.CommandContext(ctx, "postsuper", "-d", "ALL")        // want "read-only programs: not on the list of read-only programs"
	_ = exec.Command(program, "-l")                               // want "read-only programs: not written out"
	_ = exec.CommandContext(ctx, "postconf", "-e", "a=b")         // want "read-only programs: postconf the option -e"
	_ = exec.CommandContext(ctx, "postqueue", "-f")               // want "read-only programs: postqueue the option -f"
	_ = exec.CommandContext(ctx, "journalctl", "--vacuum-size=1") // want "read-only programs: the option --vacuum-size"
	_ = exec.CommandContext(ctx, "postmap", "/etc/postfix/x")     // want "read-only programs: without -q"
	_ = exec.Cmd{Path: "/usr/sbin/postsuper"}                     // want "read-only programs: uses exec.Cmd"
	start := exec.Command                                         // want "read-only programs: uses exec.Command"
	_ = start("postsuper")
}
