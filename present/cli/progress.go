package cli

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/present"
)

// progress tells on stderr how far something is that takes longer than a
// second: how much is done, how fast it goes and how long it will take. It is
// one line that is written over itself, so only a terminal gets it.
type progress struct {
	done atomic.Int64
	// waiting is what is waited for, hostile; nil or empty while work goes on.
	waiting atomic.Pointer[string]
	stop    chan struct{}
	wait    sync.WaitGroup
}

const progressEvery = time.Second

// longestWait is the width of what is waited for: the line must not break.
const longestWait = 40

// watchProgress starts to tell. Nothing else may write to stderr until end. Of
// work that cannot be counted, total being 0, it tells how long it has taken.
func (s *Screen) watchProgress(total int, of present.Words) *progress {
	p := &progress{stop: make(chan struct{})}
	if !s.live || s.quiet {
		return p
	}
	p.wait.Go(func() {
		began := time.Now()
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for told := false; ; told = true {
			select {
			case <-tick.C:
				line := progressLine(int(p.done.Load()), total, time.Since(began), of)
				if why := p.waiting.Load(); why != nil && *why != "" {
					line = present.Say("%s; waits for %s", line, present.Hostile(*why).Words(longestWait))
				}
				s.overwrite(line)
			case <-p.stop:
				if told {
					s.overwrite(present.Words{})
				}
				return
			}
		}
	})
	return p
}

// step counts one more as done. Several goroutines may call it.
func (p *progress) step() { p.done.Add(1) }

// end takes the line away.
func (p *progress) end() {
	close(p.stop)
	p.wait.Wait()
}

func (s *Screen) overwrite(w present.Words) {
	_, _ = io.WriteString(s.talk, "\r\x1b[K"+w.String()) // a screen that has gone away needs no progress
}

func progressLine(done, total int, spent time.Duration, of present.Words) present.Words {
	if total == 0 {
		return present.Say("holdfast: %s, %s", of, present.Age(spent))
	}
	line := present.Say("holdfast: %s of %s %s", present.Count(done), present.Count(total), of)
	if done == 0 || spent <= 0 {
		return line
	}
	perSecond := float64(done) / spent.Seconds()
	left := time.Duration(float64(total-done) / perSecond * float64(time.Second))
	return present.Say("%s, %s a second, %s left", line, present.Count(int(perSecond)), present.Age(left))
}
