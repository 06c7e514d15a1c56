package spool

import (
	"bytes"

	"holdfast/postfix"
)

// maxLog bounds what is read of one defer or bounce log: about 200,000
// recipients. A longer one is a gap.
const maxLog = 64 << 20

// logEntry is one entry of a defer or bounce log (global/bounce_log.c).
type logEntry struct {
	recipient []byte
	offset    int64
	status    []byte
	reason    []byte
	host      []byte
}

// eachEntry calls f for every complete entry. A blank line ends an entry; what
// stands at the end of the file without one is still being written and is not
// returned, as Postfix does not return it.
func eachEntry(log []byte, f func(*logEntry)) {
	var e logEntry
	filled := false
	for len(log) > 0 {
		end := bytes.IndexByte(log, '\n')
		if end < 0 {
			return
		}
		line := log[:end]
		log = log[end+1:]
		switch {
		case len(line) == 0:
			if filled {
				f(&e)
			}
			e, filled = logEntry{}, false
		case line[0] == '<':
			filled = e.oldForm(line) || filled
		case line[0] == 'r' || line[0] == 'o' || line[0] == 's' || line[0] == 'm':
			filled = e.attribute(line) || filled
		default: // an attribute that is not used here
			filled = true
		}
	}
}

// oldForm reads "<address>: reason", the form of before Postfix 2.1, which is
// still written beside the new one (backwards_bounce_logfile_compatibility).
func (e *logEntry) oldForm(line []byte) bool {
	end := bytes.Index(line, []byte(">: "))
	if end < 0 {
		return false
	}
	e.recipient, e.reason = line[1:end], line[end+3:]
	return true
}

func (e *logEntry) attribute(line []byte) bool {
	eq := bytes.IndexByte(line, '=')
	if eq <= 0 {
		return false
	}
	value := bytes.TrimSpace(line[eq+1:])
	switch lend(bytes.TrimSpace(line[:eq])) {
	case "recipient":
		e.recipient = value
	case "offset":
		if n, ok := parseNumber(value); ok && n > 0 {
			e.offset = n
		}
	case "status":
		e.status = value
	case "reason":
		e.reason = value
	case "mta_mname":
		e.host = value
	}
	return true
}

// join gives each recipient the reason of its last attempt. The offset decides:
// the address in the log is in another form than the one in the queue file, and
// one message can carry an address twice. An entry whose recipient is done by
// now joins nothing. It reports whether every recipient has its reason.
func (d *decoder) join(log []byte) bool {
	rcpts := d.msg.Recipients
	indexed := len(rcpts) > 8
	without := len(rcpts)
	if indexed {
		if d.byOffset == nil {
			d.byOffset = make(map[int64]int)
		}
		clear(d.byOffset)
		for i := range rcpts {
			d.byOffset[rcpts[i].Offset] = i
		}
	}
	eachEntry(log, func(e *logEntry) {
		i := -1
		switch {
		case e.offset == 0:
			i = findAddress(rcpts, e.recipient)
		case indexed:
			if k, ok := d.byOffset[e.offset]; ok {
				i = k
			}
		default:
			i = findOffset(rcpts, e.offset)
		}
		if i < 0 {
			return
		}
		r := &rcpts[i]
		if r.Reason == "" {
			without--
		}
		r.Reason, r.Status, r.Host = d.str(e.reason), d.str(e.status), d.str(e.host)
		if r.Reason == "" {
			r.Reason = "(description unavailable)"
		}
	})
	return without == 0
}

// bounces reads a bounce log: recipients that failed for good while others of
// the same message are still to do.
func (d *decoder) bounces(log []byte) {
	eachEntry(log, func(e *logEntry) {
		if len(d.msg.Bounces) < maxRecipients {
			d.msg.Bounces = append(d.msg.Bounces, postfix.Failure{
				Address: d.str(e.recipient), Offset: e.offset, Status: d.str(e.status), Reason: d.str(e.reason),
			})
		}
	})
}

func findOffset(rcpts []postfix.Recipient, offset int64) int {
	for i := range rcpts {
		if rcpts[i].Offset == offset {
			return i
		}
	}
	return -1
}

func findAddress(rcpts []postfix.Recipient, address []byte) int {
	for i := range rcpts {
		if rcpts[i].Address == lend(address) {
			return i
		}
	}
	return -1
}
