package world

import (
	"bufio"
	"bytes"
	"errors"
	"time"
)

// data reads a message and hands it over, in the order that the package's
// promise needs: read, judge, wait, look whether the client is still there,
// take (which is durable), answer.
func (s *session) data() error {
	switch {
	case s.mail == nil:
		return s.say(503, "5.5.1", "no MAIL yet")
	case len(s.mail.rcpts) == 0:
		return s.say(554, "5.5.1", "no valid recipients")
	}
	m, envelope := s.mail, s.envelope
	if done, err := s.obey(StageData, s.gate.judge(StageData, s.client, m.sender, envelope)); done {
		if err == nil {
			s.forget()
		}
		return err
	}
	if err := s.say(354, "", "go ahead, end with a dot"); err != nil {
		return err
	}
	body := s.gate.judge(StageBody, s.client, m.sender, envelope)
	if err := s.readContent(m, body); err != nil {
		return err
	}
	s.forget()
	if t := s.gate.policy(); t.SizeLimit > 0 && m.bytes > t.SizeLimit {
		return s.reply(tooBig)
	}
	if done, err := s.obey(StageDot, s.gate.judge(StageDot, s.client, m.sender, envelope)); done {
		return err
	}
	if latency := s.gate.policy().Latency; latency > 0 {
		if err := s.w.Flush(); err != nil || !s.clock.sleep(s.ctx, latency) || s.gone() {
			return errEnd
		}
	}
	return s.accept(m, s.gate.judge(StageAccepted, s.client, m.sender, envelope))
}

// accept takes the message over and answers for it.
func (s *session) accept(m *delivery, v *verdict) error {
	m.lost = v != nil && (v.cut != "" || v.reply != nil && v.reply.Code/100 != 2)
	r := s.take(s.ctx, m)
	if r.Code/100 != 2 {
		if err := s.reply(r); err != nil || r.Code == 421 {
			return errEnd
		}
		return nil
	}
	s.gate.count(func(n *SMTPCounters) {
		n.Messages++
		n.Recipients += len(m.rcpts)
		if m.lost {
			n.Lost++
		}
	})
	if m.lost {
		_, err := s.obey(StageAccepted, v)
		return err
	}
	told, err := s.promise(r, v)
	if !told {
		s.gate.count(func(n *SMTPCounters) { n.Lost++ })
		s.unanswered(m)
		return errEnd
	}
	return err
}

// promise sends the 250, or the wording that a rule has for it. It is flushed
// at once: only then is it known whether the client can have been told.
func (s *session) promise(r Reply, v *verdict) (told bool, err error) {
	if v != nil && v.delay > 0 && !s.pause(v.delay) {
		return false, errEnd
	}
	if v != nil && v.reply != nil {
		r = *v.reply
	}
	if err := s.reply(r); err != nil {
		return false, err
	}
	if err := s.w.Flush(); err != nil {
		return false, errEnd
	}
	if v != nil && v.close {
		return true, errEnd
	}
	return true, nil
}

// readContent reads up to the final dot. The gate may have it cut on the way.
func (s *session) readContent(m *delivery, body *verdict) error {
	if err := s.await(); err != nil {
		return err
	}
	if body != nil && !s.pause(body.delay) {
		return errEnd
	}
	start, last := true, byte(0) // at the start of a line; the last byte read
	for {
		if s.r.Buffered() == 0 {
			if err := s.await(); err != nil {
				return err
			}
		}
		chunk, err := s.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if start && chunk[0] == '.' {
			if bytes.Equal(chunk, []byte(".\r\n")) {
				return nil
			}
			chunk = chunk[1:]
		}
		// A full buffer may have parted the CR from its LF.
		start = bytes.HasSuffix(chunk, []byte("\r\n")) || last == '\r' && string(chunk) == "\n"
		last = chunk[len(chunk)-1]
		s.keepContent(m, chunk)
		if body != nil && body.cut != "" && m.bytes > body.after {
			_, err := s.obey(StageBody, &verdict{cut: body.cut})
			return err
		}
	}
}

func (s *session) keepContent(m *delivery, chunk []byte) {
	m.bytes += int64(len(chunk))
	if room := headBytes - len(m.head); room > 0 {
		m.head = append(m.head, chunk[:min(room, len(chunk))]...)
	}
	if s.keep {
		m.content = append(m.content, chunk...)
	}
}

// gone reports whether the client has left while it was kept waiting. A
// provider does not take mail from a client that is no longer there to be
// told; the small gap that remains is RFC 1047's, and nobody can close it.
func (s *session) gone() bool {
	if s.r.Buffered() > 0 {
		return false
	}
	if !s.patience(time.Millisecond) {
		return true
	}
	_, err := s.r.Peek(1)
	var timeout interface{ Timeout() bool }
	return err != nil && (!errors.As(err, &timeout) || !timeout.Timeout())
}
