package host

// Master and queue manager in every state that they can be in.

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/observe"
)

func TestHealthyRelay(t *testing.T) {
	r := up(t, lab.Storage{})
	before := r.run("find", r.Instances[0].SpoolDir, "-printf", `%p %i %m %u %s %T@ %C@\n`)
	h := r.ask()
	if after := r.run("find", r.Instances[0].SpoolDir, "-printf", `%p %i %m %u %s %T@ %C@\n`); after != before {
		t.Errorf("the spool was\n%s\nand is\n%s", before, after)
	}
	r.known(h)
	r.runs(h, "well")
	if h.Manager.Latency <= 0 {
		t.Errorf("the queue manager took %v", h.Manager.Latency)
	}
	s := h.Settings
	if !s.Known || !s.SMTPChroot || s.ActiveLimit != 20000 || s.MessageSizeLimit != 10240000 || s.InetProtocols != "all" ||
		s.HeloName != "relay.example.net" {
		t.Errorf("settings %+v", s)
	}
	if !h.Storage.Written || h.Storage.ReadOnly || h.Storage.Own || h.Storage.Free <= 0 || len(h.Storage.Fillers) != 0 {
		t.Errorf("storage %+v", h.Storage)
	}
	if h.Pressure.Ports == 0 || h.Pressure.IOWait < 0 || h.Pressure.CPU < 0 {
		t.Errorf("pressure %+v", h.Pressure)
	}
}

// runs compares what was found with the lab's own list of processes.
func (r *relay) runs(h *observe.Host, state string) {
	r.Helper()
	master, manager := r.process("master"), r.process("qmgr")
	if !h.Master.Known || !h.Master.Running || h.Master.PID != master.Inner {
		r.Errorf("master %+v, which is process %d: %s", h.Master, master.Inner, gaps(h, "master"))
	}
	if !h.Manager.Known || h.Manager.State != state || h.Manager.PID != manager.Inner {
		r.Errorf("queue manager %+v, which is process %d and %s: %s", h.Manager, manager.Inner, state, gaps(h, "queue manager"))
	}
	for name, at := range map[string]time.Time{"master": h.Master.Started, "queue manager": h.Manager.Started} {
		if at.IsZero() || at.After(time.Now()) || time.Since(at) > 10*time.Minute {
			r.Errorf("%s started at %v", name, at)
		}
	}
}

func TestQueueManagerStoppedAndKilled(t *testing.T) {
	r := up(t, lab.Storage{})
	r.check(r.Fault("process.stop", lab.Params{"name": "qmgr"}))
	r.runs(r.ask(), "stopped")
	r.check(r.Cure("process.stop"))
	r.runs(r.ask(), "well")

	old := r.process("qmgr").Inner
	r.check(r.Fault("process.kill", lab.Params{"name": "qmgr"}))
	h := r.ask() // and master starts another
	r.runs(h, "well")
	if h.Manager.PID == old {
		t.Errorf("the queue manager is still process %d, which was killed", old)
	}
	r.check(r.Fault("process.stop", lab.Params{"name": "master"}))
	h = r.ask()
	if !h.Master.Running || h.Manager.State != "well" {
		t.Errorf("with a stopped master: %+v, %+v", h.Master, h.Manager)
	}
}

func TestQueueManagerThatCannotStart(t *testing.T) {
	r := up(t, lab.Storage{})
	r.check(r.Fault("postfix.config", lab.Params{"set": "qmgr_message_recipient_limit=-1"}))
	h := r.ask()
	if !h.Master.Running || !h.Manager.Known || h.Manager.State != "silent" || h.Manager.PID != 0 {
		t.Errorf("master %+v, manager %+v", h.Master, h.Manager)
	}
}

func TestServiceThatIsNotThere(t *testing.T) {
	r := up(t, lab.Storage{})
	masterCF := r.HostPath(filepath.Join(r.ConfigDir, "master.cf"))
	text, err := os.ReadFile(masterCF)
	r.check(err)
	without := strings.Replace(string(text), "\nqmgr ", "\n#qmgr ", 1)
	if without == string(text) {
		t.Fatal("master.cf has no qmgr")
	}
	r.check(os.WriteFile(masterCF, []byte(without), 0o644))
	r.check(r.Postfix(t.Context(), "", "reload"))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		// Reload returns before master has read anything.
		h := r.ask()
		if h.Manager.State == "absent" && h.Master.Running {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("master %+v, manager %+v", h.Master, h.Manager)
		}
	}
}

func TestMasterGone(t *testing.T) {
	for _, fault := range []struct {
		name   string
		params lab.Params
	}{
		{"postfix.stop", nil},
		{"process.kill", lab.Params{"name": "master"}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			r := up(t, lab.Storage{})
			r.check(r.Fault(fault.name, fault.params))
			h := r.ask()
			r.known(h)
			if !h.Master.Known || h.Master.Running || h.Master.PID != 0 || h.Manager.State != "absent" {
				t.Errorf("master %+v, manager %+v", h.Master, h.Manager)
			}
			if _, err := os.Lstat(filepath.Join(r.SpoolDir(""), "pid/master.pid")); err != nil {
				t.Errorf("there is no pid file that could mislead: %v", err)
			}
		})
	}
}

// nobody may see the processes and not the sockets.
func TestWhatNobodySees(t *testing.T) {
	r := up(t, lab.Storage{})
	h := r.askAs(lab.ExecOptions{UID: 65534, GID: 65534})
	if !h.Master.Known || !h.Master.Running || h.Master.PID != r.process("master").Inner {
		t.Errorf("master %+v: %s", h.Master, gaps(h, "master"))
	}
	if h.Manager.Known || !strings.Contains(gaps(h, "queue manager"), "run holdfast as root") {
		t.Errorf("manager %+v: %s", h.Manager, gaps(h, "queue manager"))
	}
	if h.Storage.WriteTried || !h.Storage.Known || !strings.Contains(gaps(h, "storage"), "run holdfast as root") {
		t.Errorf("storage %+v: %s", h.Storage, gaps(h, "storage"))
	}
	// The mail owner may do all of it by itself.
	var owner lab.ExecOptions
	for flag, to := range map[string]*int{"-u": &owner.UID, "-g": &owner.GID} {
		for _, digit := range strings.TrimSpace(r.run("id", flag, "postfix")) {
			*to = *to*10 + int(digit-'0')
		}
	}
	h = r.askAs(owner)
	r.known(h)
	r.runs(h, "well")
	if !h.Storage.Written {
		t.Errorf("storage %+v", h.Storage)
	}
}
