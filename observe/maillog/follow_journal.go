package maillog

import (
	"context"
	"errors"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// followJournal follows the journal. journalctl can end before its time, with
// the opener or when journald's files are damaged; it is started again then.
func followJournal(ctx context.Context, in postfix.Instance, o ReadOptions, from Position, each func(Line, Position)) error {
	j := &journalFollower{at: from, by: authorOf(in), grammar: Grammar{SyslogName: in.SyslogName}, each: each}
	for ctx.Err() == nil {
		out, err := openJournal(ctx, j.at.At, true, o)
		if err == nil {
			err = errors.Join(j.read(ctx, newJournalReader(out)), out.close())
		}
		if ctx.Err() == nil && o.Missed != nil {
			text := "journalctl ended and is started again"
			if err != nil {
				text += ": " + err.Error()
			}
			o.Missed(observe.Gap{Source: gapSource, Object: journalName, Text: text})
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return ctx.Err()
}

type journalFollower struct {
	at      Position
	by      author
	grammar Grammar
	each    func(Line, Position)
}

// read takes entries until the output ends.
func (j *journalFollower) read(ctx context.Context, entries *journalReader) error {
	// journalctl -S knows seconds only: what was taken before comes again.
	passed := j.at.Cursor == ""
	for {
		l, err := entries.next()
		if errors.Is(err, errNoEntry) {
			continue
		}
		if err != nil || ctx.Err() != nil {
			return ctx.Err()
		}
		received := time.UnixMicro(l.Received.number())
		if received.Before(j.at.At) || !passed && received.Equal(j.at.At) {
			passed = passed || string(l.Cursor) == j.at.Cursor
			continue
		}
		j.at = Position{Cursor: string(l.Cursor), At: received}
		e := l.entry(j.by)
		if line, ok := j.grammar.Entry(e); ok && e.Trusted {
			j.each(line, j.at)
		}
	}
}
