// Command holdfast gets a stuck Postfix queue moving again without losing a
// message.
//
// It only wires: the words are those of package present/cli, the work is done
// by package operate.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/present/cli"
)

// heapGrowth is how much garbage, in percent of what is in use, the program
// lets lie before it collects. A relay in trouble is short of memory, and most
// of what is in use here is a snapshot that has no pointers to follow: to
// collect early costs little. GOGC overrules it as ever.
const heapGrowth = 20

func main() {
	if spool.ServeOpener(os.Args) {
		return
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once: the first one only asks.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Terminal: cli.TerminalOf(os.Stdout), Live: cli.TerminalOf(os.Stderr).Columns > 0,
		Open: func(ctx context.Context, s cli.Settings) (cli.Operator, error) {
			return operate.New(ctx, operate.Options{ConfigDirs: s.ConfigDirs})
		},
	})
	stop()
	os.Exit(code)
}
