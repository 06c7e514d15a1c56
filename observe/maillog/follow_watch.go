package maillog

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// pollWatched is how often a watched file is looked at all the same: a
	// watch ends with its folder, and not every file system has them.
	pollWatched = 2 * time.Second
	// pollAlone is the pace without a watch.
	pollAlone = 250 * time.Millisecond
)

// watcher says when a file may have changed. The file is what counts: to be
// woken in vain costs a look, and not to be woken costs the time of a poll.
type watcher struct {
	notify *fsnotify.Watcher // nil where there are none to be had
	prefix string
	poll   *time.Ticker
}

// watch watches the folder of a file, in which another may take its name.
func watch(path string) *watcher {
	w := &watcher{prefix: filepath.Clean(path)}
	pace := pollAlone
	if notify, err := fsnotify.NewWatcher(); err == nil {
		if notify.Add(filepath.Dir(path)) == nil {
			w.notify, pace = notify, pollWatched
		} else {
			_ = notify.Close()
		}
	}
	w.poll = time.NewTicker(pace)
	return w
}

func (w *watcher) close() {
	w.poll.Stop()
	if w.notify != nil {
		_ = w.notify.Close()
	}
}

// wait returns when it is time for a look, or the context's error.
func (w *watcher) wait(ctx context.Context) error {
	var events <-chan fsnotify.Event
	var errs <-chan error
	if w.notify != nil {
		events, errs = w.notify.Events, w.notify.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.poll.C:
			return nil
		case e, ok := <-events:
			if !ok || strings.HasPrefix(filepath.Clean(e.Name), w.prefix) {
				w.drop(events)
				return nil
			}
		case err := <-errs:
			_ = err // too many events at once: a look makes up for them
			return nil
		}
	}
}

// drop takes the events that one look answers all at once.
func (w *watcher) drop(events <-chan fsnotify.Event) {
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		default:
			return
		}
	}
}
