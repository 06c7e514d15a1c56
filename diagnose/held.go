package diagnose

import (
	"holdfast/observe"
	"holdfast/postfix"
)

// addHeld looks at one message on hold: since when, by whom, and whether
// releasing it would lose it.
func (v *view) addHeld(m *postfix.Message) {
	h := &v.held
	h.messages++
	h.bytes += m.Size
	if h.sample == "" {
		h.sample = m.ID
	}
	h.since = earlier(h.since, m.Changed)
	if own, ok := v.Holds[HeldFile{m.ID, m.Inode}]; ok {
		v.addOwn(m, own)
		return
	}
	overdue := !m.Changed.IsZero() && v.Now.Sub(m.Changed) > reviewAfter
	if overdue {
		h.overdue++
	}
	if !m.Expires.IsZero() && m.Expires.Before(v.Now) {
		h.expired++
	}
	var logged *observe.Hold
	if v.Log != nil {
		if l, ok := v.Log.Holds[m.ID]; ok {
			logged = &l
		}
	}
	if logged != nil && logged.By != observe.HeldByPostsuper {
		if !overdue {
			h.byRule++
		}
		return // cleanup put it there before the queue manager ever saw it
	}
	switch v.risk(m, logged) {
	case risky:
		h.risky++
		h.riskySample = m.ID
	case unsure:
		h.unsure++
	case safe:
	}
}

// addOwn looks at one that Holdfast holds: why is on record, and so is when to
// look again.
func (v *view) addOwn(m *postfix.Message, own OwnHold) {
	h := &v.held
	if v.Now.Before(own.Review) {
		h.own++
		h.review = earlier(h.review, own.Review)
		return
	}
	h.overdue++
	h.ownOverdue++
	if !m.Expires.IsZero() && m.Expires.Before(v.Now) {
		h.expired++
	}
	if own.Remembered {
		h.risky++
		h.riskySample = m.ID
	}
}

type risk int

const (
	safe risk = iota
	unsure
	risky
)

// risk says whether the queue manager may still have a held message in memory.
// It then takes the released file for the one that it knows, and removes it
// undelivered (qmgr_job_find, qmgr_active_done). Only another queue manager
// forgets.
func (v *view) risk(m *postfix.Message, logged *observe.Hold) risk {
	if v.Host != nil && v.Host.Master.Known && !v.Host.Master.Running {
		return safe // no queue manager, no memory
	}
	started := managerStarted(v.Host)
	if !m.Changed.IsZero() && !started.IsZero() && m.Changed.Before(started) {
		return safe
	}
	if waitsByReason(m) {
		return safe // held from deferred: opening a message for delivery removes its defer log
	}
	switch {
	case logged != nil && logged.FromActive:
		return risky
	case logged != nil && v.Log.From.Before(m.Arrival):
		return safe // the log has its whole life, and no activation before the hold
	}
	return unsure
}

// waitsByReason says that each recipient has the reason of a finished attempt.
func waitsByReason(m *postfix.Message) bool {
	for i := range m.Recipients {
		if m.Recipients[i].Reason == "" {
			return false
		}
	}
	return len(m.Recipients) > 0
}
