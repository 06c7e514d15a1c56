package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/lab/world"
)

// runWorld is the world's process: it lives in the world's network namespace, and its control API is a UNIX socket in
// the lab's directory, which only root can reach.
func runWorld(dir string) error {
	ready := os.NewFile(3, "ready")
	unix.CloseOnExec(3)
	serve, err := openWorld(dir)
	if sendErr := sendReport(ready, err, Info{}); err != nil || sendErr != nil {
		return errors.Join(err, sendErr)
	}
	ready.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return serve(ctx)
}

// openWorld opens every listener and returns the function that serves the control API until the context ends.
func openWorld(dir string) (func(context.Context) error, error) {
	var s spec
	if err := readJSON(filepath.Join(dir, specName), &s); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.World.LedgerDir, 0o755); err != nil {
		return nil, fmt.Errorf("create ledger directory: %w", err)
	}
	w, err := world.Start(s.World)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, worldSock)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open control socket: %w", err), w.Close())
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict control socket: %w", err), listener.Close(), w.Close())
	}
	return func(ctx context.Context) error {
		server := &http.Server{Handler: w.Handler(), ReadHeaderTimeout: 10 * time.Second}
		failed := make(chan error, 1)
		go func() { failed <- server.Serve(listener) }()
		select {
		case err = <-failed:
		case <-ctx.Done():
			err = server.Close()
		}
		return errors.Join(err, w.Close())
	}, nil
}
