package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// postfixDown: the master process does not run.
func postfixDown(v *view) []Finding {
	if v.Host == nil || !v.Host.Master.Known || v.Host.Master.Running {
		return nil
	}
	s := steps{v.in}
	f := Finding{
		Cause: postfix.PostfixDown, Scope: Global, Confidence: High, Waiting: v.waiting,
		Summary:  "Postfix is not running: nothing is accepted and nothing is delivered",
		Evidence: []Evidence{{"probe master", v.Host.At, "nobody holds the lock of " + v.in.QueueDir + "/pid/master.pid"}},
		Next: []Step{
			s.postfix("reads the configuration and changes nothing; a line of complaint is the reason why it does not start", "postconf", "-n"),
			s.postfix("starts it; what is queued is tried at once by itself", "postfix", "start"),
		},
		Avoid: []Step{
			s.requeue("the queue is whole; " + whyNoRequeue),
			s.remove("the mail waits for Postfix and for nothing else"),
		},
	}
	if v.waiting > 0 {
		f.Summary += fmt.Sprintf("; %s %s", messages(v.waiting), verb(v.waiting, "waits", "wait"))
	}
	if t := v.trouble(func(t *observe.Trouble) bool {
		return t.Severity == "fatal" && (t.Program == "master" || t.Program == "postfix-script" || t.Program == "postsuper" || t.Program == "postlog")
	}); t != nil {
		f.Evidence = append(f.Evidence, v.fromTrouble(t))
		f.Next = slices.Insert(f.Next, 0, advice("remove the reason that its last fatal line names"))
	}
	if st := v.Host.Storage; st.Known && st.ReadOnly {
		f.Next = []Step{advice("it cannot start while its spool is read-only: see there first")}
	}
	if !v.in.Enabled {
		f.Confidence = Medium
		f.Summary += " (the instance is disabled in postmulti's list, so this may be meant)"
	}
	return []Finding{f}
}

// trouble returns the latest complaint of Postfix that fits.
func (v *view) trouble(fits func(*observe.Trouble) bool) *observe.Trouble {
	if v.Log == nil {
		return nil
	}
	var best *observe.Trouble
	for i := range v.Log.Troubles {
		t := &v.Log.Troubles[i]
		if fits(t) && (best == nil || t.Last.After(best.Last)) {
			best = t
		}
	}
	return best
}

func (v *view) fromTrouble(t *observe.Trouble) Evidence {
	text := fmt.Sprintf("%s: %s: %s", t.Program, t.Severity, cut(t.Text, 200))
	if t.Count > 1 {
		text += fmt.Sprintf(" (%s times since %s)", number(t.Count), t.First.UTC().Format("15:04:05"))
	}
	return Evidence{v.logSource(), t.Last, text}
}

// queueManager: master runs, and its queue manager does not work.
func queueManager(v *view) []Finding {
	if v.Host == nil || v.Host.Master.Known && !v.Host.Master.Running {
		return nil
	}
	m := v.Host.Manager
	if !m.Known || m.State == "well" || m.State == "silent" && v.managerBusy() {
		return nil
	}
	s := steps{v.in}
	f := Finding{
		Cause: postfix.QueueManager, Subject: "qmgr", Scope: Global, Confidence: High, Waiting: v.waiting,
		Avoid: []Step{
			s.flush("the request goes to the queue manager, which does not answer; the command says nothing and does nothing"),
			s.requeue("no message is at fault; " + whyNoRequeue),
		},
	}
	switch m.State {
	case "stopped":
		f.Summary = "The queue manager is stopped (SIGSTOP): mail is accepted and none is delivered"
		f.Evidence = append(f.Evidence, Evidence{"probe qmgr", v.Host.At, fmt.Sprintf("process %d is in state T and answers no request", m.PID)})
		f.Next = []Step{{[]string{"kill", "-CONT", fmt.Sprint(m.PID)}, "lets it go on where it stood; find out who stopped it"}}
	case "absent":
		f.Summary = "The queue manager does not exist: nobody listens at public/qmgr, and no mail is delivered"
		f.Evidence = append(f.Evidence, Evidence{"probe qmgr", v.Host.At, v.in.QueueDir + "/public/qmgr refuses connections while master runs"})
		f.Next = []Step{s.postfix("shows whether master.cf has the service; it must read: qmgr unix n - n 300 1 qmgr", "postconf", "-M", "qmgr/unix")}
	default:
		f.Summary = "The queue manager does not answer: it keeps failing when it starts, or it hangs"
		f.Evidence = append(f.Evidence, Evidence{"probe qmgr", v.Host.At, "public/qmgr takes a connection and gives no answer"})
		f.Next = []Step{
			s.postfix("reads the configuration: a wrong value keeps qmgr from starting", "postconf", "-n"),
			s.again("once it is corrected: master tries again within a minute by itself, a reload does not shorten that"),
		}
	}
	if t := v.trouble(func(t *observe.Trouble) bool {
		return t.Program == "qmgr" && (t.Severity == "fatal" || t.Severity == "panic")
	}); t != nil {
		f.Evidence = append(f.Evidence, v.fromTrouble(t))
	}
	if t := v.trouble(func(t *observe.Trouble) bool {
		return t.Program == "master" && strings.Contains(t.Text, "qmgr")
	}); t != nil {
		f.Evidence = append(f.Evidence, v.fromTrouble(t))
	}
	if !v.oldestIncoming.IsZero() {
		f.Evidence = append(f.Evidence, Evidence{"spool", v.Snapshot.To, fmt.Sprintf("%s in incoming, the oldest for %s", messages(v.incoming), span(v.Now.Sub(v.oldestIncoming)))})
		f.Since = v.oldestIncoming
	}
	return []Finding{f}
}

// managerBusy says that a queue manager which is slow to answer is at work: mail
// went out a moment ago, and it has not died meanwhile.
func (v *view) managerBusy() bool {
	if v.Log == nil {
		return false
	}
	died := v.trouble(func(t *observe.Trouble) bool {
		return (t.Program == "qmgr" || t.Program == "master" && strings.Contains(t.Text, "qmgr")) && t.Severity != "" && v.Now.Sub(t.Last) < freshTrouble
	})
	if died != nil {
		return false
	}
	for _, d := range v.Log.Domains {
		if v.Now.Sub(d.LastDelivered) < 5*time.Second {
			return true
		}
	}
	return false
}

// freshTrouble is how long a complaint about storage counts after its last
// line: mail_queue_enter repeats it every ten seconds while it lasts.
const freshTrouble = 2 * time.Minute

// storage: the spool takes no message.
func storage(v *view) []Finding {
	if v.Host == nil || !v.Host.Storage.Known {
		return nil
	}
	st := v.Host.Storage
	failed := st.WriteTried && !st.Written
	switch {
	case st.ReadOnly || failed && strings.Contains(st.WriteError, "read-only"):
		return []Finding{v.storageFinding(postfix.StorageReadonly,
			"The spool is on a read-only file system: no mail is accepted, and what was delivered cannot be marked as done",
			fmt.Sprintf("%s is mounted read-only (%s)", st.Mount, st.Type),
			advice("find out why: dmesg says whether the file system met an error and made itself read-only; check it before it is written again"),
			advice("do not remount it writable before it was checked: a damaged file system takes the queue with it"))}
	case st.Inodes > 0 && st.FreeFiles < inodeFloor(st) || failed && st.Inodes > 0 && st.FreeFiles == 0:
		return []Finding{v.storageFinding(postfix.StorageInodes,
			"The spool's file system has no inodes left: no message can be accepted, although there may be bytes free",
			fmt.Sprintf("%s of %s inodes are free on %s, %s are free", number(st.FreeFiles), number(st.Inodes), st.Mount, size(st.Free)),
			v.freeing())}
	case v.tooFull():
		return []Finding{v.storageFinding(postfix.StorageSpace,
			"The spool's file system is full: Postfix refuses mail",
			fmt.Sprintf("%s of %s are free on %s; Postfix wants %s", size(st.Free), size(st.Bytes), st.Mount, size(v.spaceWanted())),
			v.freeing())}
	case failed && strings.Contains(st.WriteError, "hangs"):
		return []Finding{v.storageFinding(postfix.StorageLatency,
			"The spool's file system does not come back from a write: every process of Postfix that touches it hangs",
			fmt.Sprintf("a file of our own on %s: %s", st.Mount, st.WriteError),
			Step{[]string{"dmesg", "--ctime"}, "shows what the kernel says about the disk; a frozen file system (fsfreeze, a snapshot of the volume) is silent there"})}
	case failed && strings.Contains(st.WriteError, "no space"):
		return []Finding{v.storageFinding(postfix.StorageSpace,
			"The spool takes no write: no space left on device",
			fmt.Sprintf("writing a file of our own on %s failed: %s", st.Mount, st.WriteError), v.freeing())}
	}
	return nil
}

// inodeFloor is the number of free inodes below which there are none: file
// systems with dynamic inodes keep a few that nobody gets.
func inodeFloor(st observe.Storage) int64 { return max(1, min(64, st.Inodes/10000)) }

// spaceWanted is what smtpd wants to be free before it takes a message, and
// what queue_minfree adds (smtpd_check_queue in smtpd/smtpd_check.c).
func (v *view) spaceWanted() int64 {
	set := v.Host.Settings
	return max(set.MinFree, set.MessageSizeLimit+set.MessageSizeLimit/2)
}

func (v *view) tooFull() bool {
	st := v.Host.Storage
	if st.Free == 0 || st.WriteTried && !st.Written && strings.Contains(st.WriteError, "no space") && st.Free < 1<<20 {
		return true
	}
	// A small spool that never had this much is a choice, as long as mail is
	// taken: smtpd's own complaint says that it is not.
	if st.Free >= v.spaceWanted() {
		return false
	}
	t := v.trouble(func(t *observe.Trouble) bool {
		return t.Cause == postfix.StorageSpace && v.Now.Sub(t.Last) < freshTrouble
	})
	return t != nil || st.Bytes > 2*v.spaceWanted()
}

func (v *view) freeing() Step {
	st := v.Host.Storage
	if len(st.Fillers) > 0 {
		f := st.Fillers[0]
		if !strings.HasPrefix(f.Path, v.in.QueueDir) {
			return Step{[]string{"du", "-xsh", f.Path}, fmt.Sprintf("it holds the most: %s in %s files; free room there, or give the file system more", size(f.Bytes), number(f.Files))}
		}
		return steps{v.in}.holdfast("the queue itself fills it: see whose mail it is, then free room elsewhere or give the file system more", "queue", "--by", "sender")
	}
	return Step{[]string{"df", "-h", v.in.QueueDir}, "free room outside of the queue (logs, caches), or give the file system more"}
}

func (v *view) storageFinding(c postfix.Cause, summary, evidence string, next ...Step) Finding {
	st := v.Host.Storage
	s := steps{v.in}
	f := Finding{
		Cause: c, Subject: st.Mount, Scope: HostScope, Confidence: High, Waiting: v.waiting, Summary: summary,
		Evidence: []Evidence{{"statvfs", v.Host.At, evidence}},
		Avoid: []Step{
			s.requeue("each requeue needs a new file on the same file system; " + whyNoRequeue),
			{[]string{"rm", "-r", v.in.QueueDir + "/deferred"}, "queue files are the only copy of accepted mail"},
		},
	}
	if f.Subject == "" {
		f.Subject = st.Path
	}
	f.Next = next[:1]
	if len(next) > 1 {
		f.Avoid = append(next[1:], f.Avoid...)
	}
	f.Next = append(f.Next, s.again("once it is mended: mail flows again by itself, nothing needs a restart"))
	if st.WriteTried && !st.Written {
		f.Evidence = append(f.Evidence, Evidence{"probe storage", v.Host.At, "writing a file of our own failed: " + st.WriteError})
	}
	if t := v.trouble(func(t *observe.Trouble) bool {
		return t.Cause == postfix.StorageSpace || t.Cause == postfix.StorageReadonly || t.Cause == postfix.StorageInodes
	}); t != nil {
		f.Evidence = append(f.Evidence, v.fromTrouble(t))
		f.Since = t.First
	}
	if st.WriteTried && st.Written {
		f.RuledOut = append(f.RuledOut, Rejected{postfix.StorageReadonly, "a file of our own could be written"})
	}
	if c == postfix.StorageInodes {
		f.RuledOut = append(f.RuledOut, Rejected{postfix.StorageSpace, size(st.Free) + " are free"})
	}
	if c == postfix.StorageSpace && st.Inodes > 0 {
		f.RuledOut = append(f.RuledOut, Rejected{postfix.StorageInodes, number(st.FreeFiles) + " inodes are free"})
	}
	return f
}

// muteLog: the log ends before what the queue shows. After its file system was
// full, postlogd writes nothing more until it is started again.
func muteLog(v *view) []Finding {
	last, newest, untold := v.untold.since, v.untold.newest, v.untold.messages
	if untold == 0 || untold < 3 && newest.Sub(last) < muteAfter {
		return nil
	}
	path := v.Log.Sources[len(v.Log.Sources)-1].Name
	s := steps{v.in}
	f := Finding{
		Cause: postfix.Configuration, Subject: path, Scope: HostScope, Confidence: Medium,
		Summary: fmt.Sprintf("The mail log is mute since %s: mail that arrived after it is in the queue and not in the log", last.UTC().Format("15:04:05 UTC")),
		Since:   last,
		Evidence: []Evidence{
			{v.logSource(), last, "the last line was written at this time"},
			{"spool", newest, fmt.Sprintf("%s arrived after it, the last at this time, and no line tells of %s", messages(untold), verb(untold, "it", "them"))},
		},
		Next:  []Step{s.postfix("starts postlogd anew; it does not write again by itself after its file system was full", "postfix", "reload")},
		Avoid: []Step{advice("do not conclude from a missing line that a message was not delivered, nor send it again: the log tells nothing after this time")},
	}
	if v.Host != nil && v.Host.Storage.LogFull {
		f.Cause, f.Confidence = postfix.StorageSpace, High
		f.Evidence = append(f.Evidence, Evidence{"statvfs", v.Host.At, "the file system of the log is full"})
		f.Next = append([]Step{{[]string{"df", "-h", path}, "free room there first"}}, f.Next...)
	}
	return []Finding{f}
}

// untold is mail in the queue that arrived after the last line of the log.
type untold struct {
	since    time.Time // the last line; zero where there is no log to compare with
	messages int
	newest   time.Time
}

func newUntold(log *observe.Log) untold {
	if log == nil || len(log.Sources) == 0 || log.To.IsZero() {
		return untold{}
	}
	return untold{since: later(log.To, log.Sources[len(log.Sources)-1].Modified)}
}

// addUntold counts a message. The log was read while the queue was looked at:
// what came after that began may have left its lines since.
func (v *view) addUntold(m *postfix.Message) {
	u := &v.untold
	if u.since.IsZero() || m.Queue == postfix.Maildrop || !m.Arrival.After(u.since.Add(muteSlack)) || !m.Arrival.Before(v.Snapshot.From) {
		return
	}
	u.messages++
	u.newest = later(u.newest, m.Arrival)
}

// How far the queue may be ahead of the log: stamps of log lines are whole
// seconds, and a syslog daemon may hold lines back for a moment. One message
// needs more than several do.
const (
	muteSlack = 2 * time.Second
	muteAfter = 10 * time.Second
)
