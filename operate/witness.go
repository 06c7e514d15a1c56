package operate

import (
	"context"
	"sync"
	"time"

	"holdfast/act"
	"holdfast/observe/maillog"
	"holdfast/plan"
)

// logPatience is how long a line about a message that was tried may take to
// come into the log after the queue has told that the attempt is over.
const logPatience = 3 * time.Second

// witness tells the lines that Postfix logs about the one message of a try,
// while it is tried. What it returns waits a moment for the line of the attempt
// itself and then ends it. A log that cannot be followed is told nothing of: the
// outcome comes from the queue in any case.
func (o *Operator) witness(ctx context.Context, in *instance, targets []plan.Target, tell func(act.Step)) (func(act.Step), func()) {
	if len(targets) != 1 || tell == nil {
		return tell, func() {}
	}
	opts := maillog.ReadOptions{Opener: o.opener}
	from, err := maillog.End(in.Instance, opts)
	if err != nil {
		return tell, func() {}
	}
	var mu sync.Mutex
	shared := func(s act.Step) {
		mu.Lock()
		defer mu.Unlock()
		tell(s)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	tried, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(ended)
		_ = maillog.Follow(ctx, in.Instance, opts, from, func(l maillog.Line, _ maillog.Position) {
			if l.ID != targets[0].ID {
				return
			}
			shared(act.Step{Log: &l})
			if l.Event == maillog.Delivery || l.Event == maillog.Expired || l.Event == maillog.Finished {
				once.Do(func() { close(tried) })
			}
		}) // its error is that of the context, or says that the log cannot be followed
	}()
	return shared, func() {
		select {
		case <-tried:
		case <-ended:
		case <-time.After(logPatience):
		}
		cancel()
		<-ended
	}
}
