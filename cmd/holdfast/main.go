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
	"syscall"

	"holdfast/observe"
	"holdfast/operate"
	"holdfast/present/cli"
)

func main() {
	if operate.Serve(os.Args) {
		return
	}
	observe.TuneCollector()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once: the first one only asks.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Terminal: cli.TerminalOf(os.Stdout), Live: cli.TerminalOf(os.Stderr).Columns > 0,
		Open: func(ctx context.Context, s cli.Settings) (cli.Operator, error) {
			return operate.New(ctx, operate.Options{ConfigDirs: s.ConfigDirs, StateDir: s.StateDir, Surroundings: s.Surroundings, Record: s.Surroundings})
		},
		Change:    func(ctx context.Context, s cli.Settings) (cli.Changer, error) { return open(ctx, s, true) },
		Keep:      func(ctx context.Context, s cli.Settings) (cli.Keeper, error) { return open(ctx, s, true) },
		Record:    func(ctx context.Context, s cli.Settings) (cli.Recorder, error) { return open(ctx, s, false) },
		View:      func(ctx context.Context, s cli.Settings) (cli.Viewer, error) { return open(ctx, s, true) },
		Account:   func(ctx context.Context, s cli.Settings) (cli.Accountant, error) { return open(ctx, s, false) },
		Save:      func(ctx context.Context, s cli.Settings) (cli.Saver, error) { return open(ctx, s, true) },
		Tick:      func(ctx context.Context, s cli.Settings) (cli.Ticker, error) { return open(ctx, s, true) },
		Asks:      cli.TerminalOf(os.Stdin).Columns > 0,
		Summarize: operate.SummarizeLogs,
	})
	stop()
	os.Exit(code)
}
