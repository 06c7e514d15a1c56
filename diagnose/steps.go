package diagnose

import (
	"holdfast/postfix"
)

// steps makes commands for one instance. Only programs that are on the host are
// named: Postfix's own, and Holdfast.
type steps struct {
	in postfix.Instance
}

// holdfast is a command of Holdfast on this instance.
func (s steps) holdfast(why string, args ...string) Step {
	argv := []string{"holdfast"}
	if s.in.ConfigDir != "" && s.in.ConfigDir != "/etc/postfix" {
		argv = append(argv, "-c", s.in.ConfigDir)
	}
	return Step{append(argv, args...), why}
}

// postfix is a command of Postfix on this instance.
func (s steps) postfix(why, program string, args ...string) Step {
	argv := []string{program}
	if s.in.ConfigDir != "" && s.in.ConfigDir != "/etc/postfix" {
		argv = append(argv, "-c", s.in.ConfigDir)
	}
	return Step{append(argv, args...), why}
}

// tryOne delivers one message now, to see what happens.
func (s steps) tryOne(id postfix.QueueID, why string) Step {
	return s.holdfast(why, "try", string(id), "--reason", "is it mended?")
}

// again looks once more.
func (s steps) again(why string) Step { return s.holdfast(why, "triage") }

// waiting lists the mail that waits for a cause.
func (s steps) waiting(c postfix.Cause, why string, more ...string) Step {
	return s.holdfast(why, append([]string{"queue", "--cause", string(c)}, more...)...)
}

// advice is a step that no command carries out.
func advice(why string) Step { return Step{Argv: []string{}, Why: why} }

// The steps that people take by reflex, and what each does here.
func (s steps) flush(why string) Step   { return s.postfix(why, "postqueue", "-f") }
func (s steps) restart(why string) Step { return s.postfix(why, "postfix", "stop") }
func (s steps) requeue(why string) Step { return s.postfix(why, "postsuper", "-r", "ALL") }
func (s steps) release(why string) Step { return s.postfix(why, "postsuper", "-H", "ALL") }
func (s steps) remove(why string) Step  { return s.postfix(why, "postsuper", "-d", "ALL") }

const (
	whyNoFlush   = "every queued message would be tried at once: the same failures again, all destinations hit together, and each message backs off anew"
	whyNoRestart = "the cause is not in Postfix: a restart drops running deliveries and what qmgr has learnt, and stops intake meanwhile"
	whyNoRequeue = "filters and BCC maps run again, messages in delivery are sent twice, and what cannot be parsed is deleted by pickup"
)
