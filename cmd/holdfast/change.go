package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"holdfast/config"
	"holdfast/operate"
	"holdfast/plan"
	"holdfast/present/cli"
	"holdfast/record/audit"
)

// changing is a host in the words of package cli.
type changing struct{ *operate.Operator }

// open reaches the host to change something, or to read what was recorded.
func open(ctx context.Context, s cli.Settings, change bool) (changing, error) {
	if change {
		// Who is cut off from a terminal or a pipe has not asked to stop.
		signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	}
	settings, err := config.Load(s.ConfigFile, s.ConfigFile != config.DefaultPath)
	if err != nil {
		return changing{}, err
	}
	policy := operate.PolicyOf(&settings.Config)
	asked := ""
	if s.ConfigFile != config.DefaultPath {
		if asked, err = filepath.Abs(s.ConfigFile); err != nil {
			return changing{}, err
		}
	}
	o, err := operate.New(ctx, operate.Options{
		ConfigDirs: s.ConfigDirs, StateDir: s.StateDir, Surroundings: change || s.Surroundings, Change: change, Record: true,
		Policy: &policy, Recipients: settings.Vault.Recipients, Settings: asked,
	})
	return changing{o}, err
}

// Prepare implements cli.Changer.
func (c changing) Prepare(ctx context.Context, r cli.Request) (*plan.Plan, []plan.Target, error) {
	return c.Operator.Prepare(ctx, operate.Request(r))
}

// Run implements cli.Changer.
func (c changing) Run(ctx context.Context, p *plan.Plan, targets []plan.Target, tell func(cli.Step)) (cli.Report, error) {
	report, err := c.Operator.Run(ctx, p, targets, func(s operate.Step) {
		tell(cli.Step{Targets: s.Targets, Settled: s.Settled, Outcomes: s.Outcomes, Waiting: s.Waiting, Log: s.Log})
	})
	return cli.Report{Outcomes: report.Outcomes, Left: report.Left, Why: report.Why, CheckpointErr: report.CheckpointErr}, err
}

// Recover implements cli.Keeper.
func (c changing) Recover(ctx context.Context) (cli.Recovery, error) {
	r, err := c.Operator.Recover(ctx)
	return cli.Recovery(r), err
}

// Audit implements cli.Recorder. A log that is named is read with the rights
// that are left: it may come from anywhere.
func (c changing) Audit(_ context.Context, path string) (io.ReadCloser, []byte, error) {
	if path != "" {
		log, err := os.Open(path)
		if err != nil {
			return nil, nil, err
		}
		checkpoints, err := os.ReadFile(filepath.Join(filepath.Dir(path), audit.CheckpointsName))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return log, checkpoints, err
	}
	log, checkpoints, err := c.Operator.Audit()
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(bytes.NewReader(nil)), nil, nil // nothing was ever changed
	}
	return log, checkpoints, err
}
