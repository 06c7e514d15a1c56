// Command holdfast gets a stuck Postfix queue moving again without losing a
// message.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"holdfast/observe/spool"
	"holdfast/operate"
	"holdfast/present/cli"
)

func main() {
	if spool.ServeOpener(os.Args) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Terminal: cli.TerminalOf(os.Stdout),
		Open: func(s cli.Settings) (cli.Operator, error) {
			return operate.New(ctx, operate.Options{ConfigDirs: s.ConfigDirs})
		},
	})
	stop()
	os.Exit(code)
}
