package maillog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// following is a Follow that runs, and what it has said.
type following struct {
	t    *testing.T
	end  context.CancelFunc
	done chan error

	mu       sync.Mutex
	ids      []postfix.QueueID
	at       Position
	gaps     []observe.Gap
	progress chan struct{}
}

func follow(t *testing.T, path string, from Position) *following {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	f := &following{t: t, end: end, done: make(chan error, 1), progress: make(chan struct{}, 1)}
	o := ReadOptions{Missed: func(g observe.Gap) { f.note(func() { f.gaps = append(f.gaps, g) }) }}
	go func() {
		f.done <- Follow(ctx, logsTo(path), o, from, func(l Line, at Position) {
			f.note(func() { f.ids, f.at = append(f.ids, l.ID), at })
		})
	}()
	t.Cleanup(end)
	return f
}

func (f *following) note(what func()) {
	f.mu.Lock()
	what()
	f.mu.Unlock()
	select {
	case f.progress <- struct{}{}:
	default:
	}
}

// await waits until something is so; the limit is for a broken follower, not a
// slow one.
func (f *following) await(what string, so func() bool) {
	f.t.Helper()
	limit := time.After(time.Minute)
	for {
		f.mu.Lock()
		ok := so()
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-f.progress:
		case <-time.After(50 * time.Millisecond): // another one waits as well, and was woken
		case err := <-f.done:
			f.t.Fatalf("it ended before %s: %v", what, err)
		case <-limit:
			f.t.Fatalf("waited in vain for %s; %d lines, %s", what, len(f.ids), gapTexts(f.gaps))
		}
	}
}

// has waits for the messages from 0 to count-1, each once and in order.
func (f *following) has(first, count int) {
	f.t.Helper()
	f.await(fmt.Sprintf("%d lines", count), func() bool { return len(f.ids) >= count })
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, id := range f.ids {
		if want := postfix.QueueID(fmt.Sprintf("%010X", 0x3000000000+first+i)); id != want || i >= count {
			f.t.Fatalf("line %d of %d is %q, want %q", i, len(f.ids), id, want)
		}
	}
}

func (f *following) stop() Position {
	f.t.Helper()
	f.end()
	if err := <-f.done; !errors.Is(err, context.Canceled) {
		f.t.Errorf("it ended with %v", err)
	}
	return f.at
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(t, err)
	_, err = f.WriteString(text)
	check(t, err)
	check(t, f.Close())
}

func endOf(t *testing.T, path string) Position {
	t.Helper()
	at, err := End(logsTo(path), ReadOptions{})
	check(t, err)
	return at
}

func TestFollowsOverRotations(t *testing.T) {
	path := write(t, t.TempDir()+"/mail.log", sentFrom(900, 5, morning())+"half a li")
	f := follow(t, path, endOf(t, path))
	appendTo(t, path, "ne\n"+sent(0, morning())+"a line of nobody\n")
	f.has(0, 1)

	// Renamed; the writer has the old file open and goes on in it.
	old, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	check(t, os.Rename(path, path+".1"))
	_, err = old.WriteString(sent(1, morning()))
	check(t, err)
	f.has(0, 2)
	write(t, path, "")
	_, err = old.WriteString(sent(2, morning())[:40])
	check(t, err)
	_, err = old.WriteString(sent(2, morning())[40:])
	check(t, err)
	f.has(0, 3)
	_, err = old.WriteString(sent(3, morning()))
	check(t, err)
	check(t, old.Close())
	appendTo(t, path, sent(4, morning()))
	f.has(0, 5)

	// Away, and back.
	check(t, os.Remove(path))
	appendTo(t, path, sentFrom(5, 3, morning()))
	f.has(0, 8)
	f.stop()
	if len(f.gaps) != 0 {
		t.Errorf("%s", gapTexts(f.gaps))
	}
}

func TestFollowsOverCopytruncate(t *testing.T) {
	path := write(t, t.TempDir()+"/mail.log", sentFrom(900, 50, morning()))
	f := follow(t, path, endOf(t, path))
	appendTo(t, path, sentFrom(0, 3, morning()))
	f.has(0, 3)
	check(t, os.Truncate(path, 0))
	f.await("word of it", func() bool { return len(f.gaps) == 1 })
	appendTo(t, path, sentFrom(3, 2, morning()))
	f.has(0, 5)
	f.stop()
	if len(f.gaps) != 1 || !strings.Contains(f.gaps[0].Text, "emptied") {
		t.Errorf("%s", gapTexts(f.gaps))
	}
}

// A position outlives the program, and the name of the file that it is in.
func TestResumesWhereItWas(t *testing.T) {
	path := write(t, t.TempDir()+"/mail.log", sentFrom(900, 5, morning()))
	f := follow(t, path, endOf(t, path))
	appendTo(t, path, sentFrom(0, 3, morning()))
	f.has(0, 3)
	kept, err := json.Marshal(f.stop())
	check(t, err)

	// Meanwhile it was rotated twice.
	appendTo(t, path, sentFrom(3, 2, morning()))
	check(t, os.Rename(path, path+".2"))
	write(t, path+".1", sentFrom(5, 2, morning()))
	write(t, path, sentFrom(7, 2, morning()))
	var at Position
	check(t, json.Unmarshal(kept, &at))
	f = follow(t, path, at)
	f.has(3, 6)
	at = f.stop()
	if len(f.gaps) != 0 {
		t.Errorf("%s", gapTexts(f.gaps))
	}

	// And then it was thrown away, or another one has its inode.
	for name, from := range map[string]Position{
		"gone":    {Device: at.Device, Inode: at.Inode + 1, Offset: at.Offset, Sum: at.Sum},
		"another": {Device: at.Device, Inode: at.Inode, Offset: at.Offset, Sum: at.Sum + 1},
		"longer":  {Device: at.Device, Inode: at.Inode, Offset: 1 << 40, Sum: at.Sum},
		"damaged": {Device: at.Device, Inode: at.Inode, Offset: -5, Sum: at.Sum},
	} {
		f := follow(t, path, from)
		f.has(7, 2)
		f.stop()
		if len(f.gaps) != 1 || !strings.Contains(f.gaps[0].Text, "not seen") {
			t.Errorf("%s: %s", name, gapTexts(f.gaps))
		}
	}
}

func TestFollowsALogThatIsNotThereYet(t *testing.T) {
	path := t.TempDir() + "/mail.log"
	f := follow(t, path, endOf(t, path))
	f.await("word of it", func() bool { return len(f.gaps) == 1 })
	appendTo(t, path, sentFrom(0, 4, morning()))
	f.has(0, 4)
	f.stop()
}

// What is longer than any line is left out, whole.
func TestFollowSkipsWhatIsNoLine(t *testing.T) {
	path := write(t, t.TempDir()+"/mail.log", "")
	f := follow(t, path, endOf(t, path))
	appendTo(t, path, sent(0, morning())+strings.Repeat("z", 3*bufferSize))
	appendTo(t, path, sent(7, morning())+sent(1, morning())) // the first is the end of that line
	f.has(0, 2)
	f.stop()
}

// Under constant rotation each line is met once and in order.
func TestFollowsABusyLog(t *testing.T) {
	l := &busyLog{t: t, path: write(t, t.TempDir()+"/mail.log", ""), stop: make(chan struct{}), stopped: make(chan struct{})}
	var f *following
	var rotations []int
	l.rotate = func(l *busyLog) {
		// A rotation is hours after the last; here the follower is let to come
		// that far, or it would be rotations in one look.
		n := int(l.count.Load())
		rotations = append(rotations, n)
		f.await("the rotation", func() bool { return len(f.ids) >= n })
		l.age()
		l.do(os.Rename(l.path, l.path+".1"))
		l.do(l.f.Close())
		l.open()
	}
	f = follow(t, l.path, endOf(t, l.path))
	go l.run()
	f.await("some rotations", func() bool { return len(f.ids) > 5*4000 })
	close(l.stop)
	<-l.stopped
	check(t, l.failed)
	count := int(l.count.Load())
	f.await("the end", func() bool { return len(f.ids) >= count })
	f.stop()
	if len(f.ids) != count || !slices.IsSorted(f.ids) || len(slices.Compact(f.ids)) != count {
		t.Errorf("%d lines of %d, in order: %v", len(f.ids), count, slices.IsSorted(f.ids))
	}
	if len(rotations) < 5 {
		t.Errorf("%d rotations", len(rotations))
	}
}
