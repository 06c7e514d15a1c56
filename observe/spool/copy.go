package spool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/observe"
	"holdfast/postfix"
)

// InspectCopy reads a copy of a queue file, from the vault, as Inspect reads
// one in the spool. It has no defer log: why mail waited is not in it.
func (r *Reader) InspectCopy(f *os.File, id postfix.QueueID, want Want) (*Detail, error) {
	var st unix.Stat_t
	fd := int(f.Fd())
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, cannotRead(f.Name(), err)
	}
	dec := &decoder{all: true}
	if err := dec.decode(fd, st.Size, postfix.Hold); err != nil {
		return nil, cannotRead(f.Name(), err)
	}
	if dec.msg.Damage != "" {
		return nil, cannotRead(f.Name(), errors.New(dec.msg.Damage))
	}
	finishFound(&dec.msg, id, &st)
	packed, m := observe.NewShard(), new(postfix.Message)
	packed.Add(&dec.msg)
	packed.Get(0, m)
	m.Expires = r.in.Expires(m.Created, m.Sender)
	out := &Detail{Message: m, Finished: append([]postfix.Recipient(nil), dec.finished...), Path: f.Name()}
	start, err := dec.contentStart()
	if err != nil {
		return out, cannotRead(f.Name(), err)
	}
	text, err := openContent(fd, st.Size, start)
	if err == nil {
		err = out.take(text, want)
	}
	if err != nil {
		return out, cannotRead(f.Name(), err)
	}
	return out, nil
}
