package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Queued is a message as postqueue -j lists it.
type Queued struct {
	Queue       string `json:"queue_name"`
	ID          string `json:"queue_id"`
	ArrivalTime int64  `json:"arrival_time"`
	Size        int64  `json:"message_size"`
	Sender      string `json:"sender"`
	Recipients  []struct {
		Address string `json:"address"`
		Reason  string `json:"delay_reason"`
	} `json:"recipients"`
}

// Queue lists the messages of one instance by postqueue -j: Postfix's own word, independent of any reader under test.
// It does not list the corrupt queue.
func (l *Lab) Queue(ctx context.Context, name string) ([]Queued, error) {
	in, err := l.instance(name)
	if err != nil {
		return nil, err
	}
	res, err := l.must(ctx, "postqueue", "-c", in.configDir(), "-j")
	if err != nil {
		return nil, err
	}
	var list []Queued
	lines := bufio.NewScanner(strings.NewReader(res.Stdout))
	lines.Buffer(nil, 64<<20) // a message of many recipients is one line
	for lines.Scan() {
		var m Queued
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, fmt.Errorf("decode postqueue line: %w", err)
		}
		list = append(list, m)
	}
	return list, lines.Err()
}

// WaitQueue looks at the primary instance's queue until it is as wanted.
func (l *Lab) WaitQueue(ctx context.Context, wanted func([]Queued) bool) error {
	for {
		list, err := l.Queue(ctx, "")
		if err == nil && wanted(list) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for queue of lab %q: %w; last seen: %s", l.Name, ctx.Err(), Summary(list))
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
		}
	}
}

// Count returns a condition for WaitQueue: exactly n messages in the queue named, and none in a state between.
func Count(queue string, n int) func([]Queued) bool {
	return func(list []Queued) bool {
		counts := Counts(list)
		return counts[queue] == n && (queue == "incoming" || counts["incoming"] == 0) && (queue == "active" || counts["active"] == 0)
	}
}

// Empty is the condition that nothing is queued.
func Empty(list []Queued) bool { return len(list) == 0 }

// Counts counts messages by queue.
func Counts(list []Queued) map[string]int {
	counts := map[string]int{}
	for _, m := range list {
		counts[m.Queue]++
	}
	return counts
}

// Summary is Counts for people.
func Summary(list []Queued) string {
	counts := Counts(list)
	var parts []string
	for _, queue := range []string{"maildrop", "incoming", "active", "deferred", "hold"} {
		if counts[queue] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", queue, counts[queue]))
		}
	}
	if len(parts) == 0 {
		return "empty"
	}
	return strings.Join(parts, ", ")
}
