package cli

import (
	"time"

	"holdfast/observe"
	"holdfast/present"
)

// hostBlock says what the surroundings answered, a line for each that was
// asked. What is not known has no line: the gaps below tell about it.
func hostBlock(p *page, s *sight) {
	if s.Host == nil {
		return
	}
	lines := resolverLines(s.Host.DNS)
	lines = append(lines, serverLines(s.Host)...)
	lines = append(lines, storageLine(s.Host.Storage), postfixLine(s), pressureLine(s.Host.Pressure))
	label := present.Say("HOST")
	for _, line := range lines {
		if line.Empty() {
			continue
		}
		p.labelled(label, line, 0)
		label = present.Words{}
	}
}

func resolverLines(d observe.DNS) []present.Words {
	var lines []present.Words
	for _, r := range present.ResolversOf(d) {
		line := present.Say("name server %s", text(r.Address))
		// Where there is one list, everybody knows which.
		if d.Stale {
			line = present.Say("%s of %s", line, text(r.Path))
		}
		if r.Stale {
			line = present.Say("%s (an old copy)", line)
		}
		if r.Questions == 0 {
			line = present.Say("%s: there was nothing to ask", line)
		} else {
			line = present.Say("%s: %s of %s answered", line, present.Count(r.Questions-r.Failed), present.Count(r.Questions))
		}
		if r.LatencyMS != nil {
			line = present.Say("%s, median %s", line, present.Took(time.Duration(*r.LatencyMS*float64(time.Millisecond))))
		}
		lines = append(lines, warnIf(r.Failed > 0 || r.Stale, line))
	}
	return lines
}

// serverLines leave out servers that were left alone: nothing was learnt.
func serverLines(h *observe.Host) []present.Words {
	if !h.Egress.Known {
		return nil
	}
	var lines []present.Words
	for _, r := range h.Egress.Reaches {
		if r.Refused != "" {
			continue
		}
		line := present.Say("mail server %s[%s]:%s", text(r.Server), text(r.Address.String()), text(present.Digits(int(r.Port))))
		if r.Failed {
			line = present.Say("%s: fails in %s after %s: %s", line, text(r.Stage), present.Took(r.Latency), text(r.Text))
		} else {
			line = present.Say("%s: greets after %s", line, present.Took(r.Latency))
		}
		if r.TLS != "" {
			line = present.Say("%s, %s", line, text(r.TLS))
		}
		// What an earlier look has learnt is not asked again within a minute.
		if r.At.Before(h.At) {
			line = present.Say("%s (%s before)", line, present.Age(h.At.Sub(r.At)))
		}
		lines = append(lines, warnIf(r.Failed, line))
	}
	return lines
}

func storageLine(s observe.Storage) present.Words {
	if !s.Known {
		return present.Words{}
	}
	where := s.Path
	if s.Mount != "" {
		where = s.Mount
	}
	line := present.Say("disk %s: %s of %s free", text(where), present.Size(s.Free), present.Size(s.Bytes))
	if s.Inodes > 0 {
		line = present.Say("%s, %s of %s inodes", line, present.Count(int(s.FreeFiles)), present.Count(int(s.Inodes)))
	}
	if s.ReadOnly {
		line = present.Say("%s, read-only", line)
	}
	switch {
	case s.Written:
		line = present.Say("%s, write and fsync %s", line, present.Took(s.Latency))
	case s.WriteTried:
		line = present.Say("%s, write fails: %s", line, text(s.WriteError))
	}
	return warnIf(s.ReadOnly || s.WriteTried && !s.Written, line)
}

// postfixLine has the two programs without which nothing moves.
func postfixLine(s *sight) present.Words {
	var parts []present.Words
	master, manager := s.Host.Master, s.Host.Manager
	if master.Known {
		line := present.Say("master does not run")
		if master.Running {
			line = process(present.Say("master"), master.PID, master.Started, s.now)
		}
		parts = append(parts, line)
	}
	if manager.Known {
		line := present.Say("%s: %s", process(present.Say("qmgr"), manager.PID, manager.Started, s.now), text(manager.State))
		if manager.Latency > 0 {
			line = present.Say("%s, %s", line, present.Took(manager.Latency))
		}
		parts = append(parts, line)
	}
	if len(parts) == 0 {
		return present.Words{}
	}
	ill := master.Known && !master.Running || manager.Known && manager.State != "well"
	return warnIf(ill, present.Say("Postfix: %s", present.Join("; ", parts...)))
}

// process names a program with what is known of its process.
func process(name present.Words, pid int, started, now time.Time) present.Words {
	if pid != 0 {
		name = present.Say("%s %s", name, text(present.Digits(pid)))
	}
	if !started.IsZero() {
		name = present.Say("%s since %s", name, present.Clock(started, now))
	}
	return name
}

func pressureLine(p observe.Pressure) present.Words {
	if !p.Known {
		return present.Words{}
	}
	var parts []present.Words
	for _, share := range []struct {
		what    present.Words
		percent float64
	}{
		{present.Say("CPU"), p.CPU},
		{present.Say("memory"), p.Memory},
		{present.Say("IO"), p.IO},
		{present.Say("iowait"), p.IOWait},
	} {
		if share.percent >= 0 {
			parts = append(parts, present.Say("%s %s%%", share.what, present.Decimal(share.percent, 1)))
		}
	}
	parts = append(parts, present.Say("load %s", present.Decimal(p.Load, 2)))
	if p.Ports > 0 {
		parts = append(parts, present.Say("%s of %s ports used", present.Count(p.PortsUsed), present.Count(p.Ports)))
	}
	return present.Say("pressure: %s", present.Join(", ", parts...))
}

// warnIf puts words that tell of trouble into the colour of it.
func warnIf(trouble bool, words present.Words) present.Words {
	if trouble {
		return words.In(present.Warn)
	}
	return words
}
