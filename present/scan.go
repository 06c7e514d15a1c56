package present

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"holdfast/observe"
	"holdfast/postfix"
)

const (
	// fewMessages is the number below which starting more goroutines costs
	// more than it saves.
	fewMessages = 4096
	// mostWorkers bounds what a look takes from a relay's own work.
	mostWorkers = 8
	// messagesPerCheck is how often a scan asks whether it should stop.
	messagesPerCheck = 1024
)

// Scan visits every message of the snapshot once, on all processors. Each
// worker has a state of its own, made by begin, which is told how many workers
// there are; the states are returned in the
// order of the messages that they saw. The message is lent to visit.
func Scan[A any](ctx context.Context, snap *observe.Snapshot, begin func(workers int) (A, error), visit func(A, int, *postfix.Message) error) ([]A, error) {
	workers := min(runtime.GOMAXPROCS(0), mostWorkers)
	if snap.Len() < fewMessages {
		workers = 1
	}
	states := make([]A, workers)
	for w := range states {
		var err error
		if states[w], err = begin(workers); err != nil {
			return nil, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		from, to := snap.Len()*w/workers, snap.Len()*(w+1)/workers
		group.Go(func() error {
			var m postfix.Message
			for i := from; i < to; i++ {
				if i%messagesPerCheck == 0 && ctx.Err() != nil {
					return context.Cause(ctx)
				}
				snap.At(i, &m)
				if err := visit(states[w], i, &m); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return states, nil
}
