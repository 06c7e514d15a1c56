package crash

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/lab"
	"holdfast/lab/strike"
	"holdfast/record"
)

// TestPowerCuts kills every process of a verb at one system call and takes the
// power away from the disk that has both queue and record: what was not synced
// is gone. kill -9 alone says nothing about that. Postfix is stopped, which
// postsuper does not mind, so that the disk can be taken from under it.
func TestPowerCuts(t *testing.T) {
	for _, storage := range []lab.Storage{{Kind: "ext4", Bytes: 160 << 20}, {Kind: "xfs", Bytes: 300 << 20}} {
		for _, v := range verbs() {
			if !slices.Contains([]string{"hold", "put-off", "delete", "restore"}, v.name) {
				continue
			}
			if !all() && storage.Kind == "xfs" && v.name != "delete" {
				continue
			}
			t.Run(storage.Kind+" "+v.name, func(t *testing.T) {
				t.Parallel()
				cuts(t, storage, v)
			})
		}
	}
}

// cutting is a relay whose queue and record share a disk of their own.
type cutting struct {
	*relay
	state string
}

func cuts(t *testing.T, storage lab.Storage, v verb) {
	r := upOn(t, storage)
	root, err := r.VolumeRoot("")
	r.check(err)
	c := &cutting{r, filepath.Join(root, "state")}
	learnt := 2 * v.each
	list := cutPoints(c, v, learnt)
	pool := c.prepare(v, (len(list)+3)*v.each)
	reached := 0
	for _, p := range list {
		var ids []string
		ids, pool = pool[:v.each], pool[v.each:]
		got, _ := r.struck(p, ids, c.args(v)...)
		if got.Struck {
			reached++
		}
		c.cut()
		c.settled(v.name+", "+p.String(), ids)
	}
	// What was said to be done when the power went away is done.
	for range 3 {
		var ids []string
		ids, pool = pool[:v.each], pool[v.each:]
		got, res := r.struck(strike.Point{}, ids, c.args(v)...)
		if !slices.Contains(v.exits, got.Code) {
			t.Fatalf("exit %d\n%s%s", got.Code, res.Stdout, res.Stderr)
		}
		c.cut()
		c.settled(v.name+", cut behind its end", ids)
		ledger := c.ledger()
		for _, id := range ids {
			c.stillDone(v, id, ledger)
		}
	}
	t.Logf("%s on %s: %d of %d cuts", v.name, storage.Kind, reached, len(list))
	if reached < len(list)*8/10 {
		t.Errorf("only %d of %d points were reached", reached, len(list))
	}
}

// cutPoints learns the calls of a verb: those of hand and reader, a few or all.
func cutPoints(c *cutting, v verb, n int) []strike.Point {
	pool := c.prepare(v, n)
	var whole strike.Report
	for len(pool) > 0 { // the second run makes no directories
		ids := pool[:v.each]
		pool = pool[v.each:]
		var res lab.Result
		whole, res = c.struck(strike.Point{}, ids, c.args(v)...)
		if !slices.Contains(v.exits, whole.Code) {
			c.Fatalf("exit %d\n%s%s", whole.Code, res.Stdout, res.Stderr)
		}
	}
	var list []strike.Point
	for _, p := range points(whole) {
		if !all() && !slices.Contains([]string{"fsync", "rename", "unlink", "pwrite"}, p.Kind) {
			continue
		}
		p.All = true
		list = append(list, p)
	}
	return list
}

func (c *cutting) args(v verb) []string {
	return slices.Concat(v.args, []string{"--state-dir", c.state})
}

// prepare brings messages to where the verb starts from, stops Postfix, and has
// all of that on disk.
func (c *cutting) prepare(v verb, n int) []string {
	c.Helper()
	running, err := c.Running(c.ctx, "")
	c.check(err)
	if !running {
		c.check(c.Postfix(c.ctx, "", "start"))
	}
	ids := c.deferred(n)
	c.check(c.Postfix(c.ctx, "", "stop"))
	// Without a postlogd postsuper opens the log itself, as the mail owner, and
	// dies behind the first message where it may not.
	_, err = c.Exec(c.ctx, "chmod", "0666", "/var/log/mail.log")
	c.check(err)
	if first := map[string]string{"restore": "delete", "put-off": "hold"}[v.name]; first != "" {
		res, err := c.ExecWith(c.ctx, lab.ExecOptions{Stdin: lines(ids)}, program, first, "-", "--yes", "--reason", "crash test", "--state-dir", c.state)
		c.check(err)
		if res.Code != 0 {
			c.Fatalf("%s: exit %d\n%s%s", first, res.Code, res.Stdout, res.Stderr)
		}
	}
	_, err = c.Exec(c.ctx, "sync")
	c.check(err)
	return ids
}

func (c *cutting) cut() {
	c.Helper()
	c.check(c.PowerCut(c.ctx, ""))
}

// settled recovers twice and counts.
func (c *cutting) settled(point string, ids []string) {
	c.Helper()
	if res := c.run("recover", "--state-dir", c.state); res.Code != 0 {
		c.Errorf("%s: recover: exit %d\n%s%s", point, res.Code, res.Stdout, res.Stderr)
	}
	if res := c.run("recover", "-o", "json", "--state-dir", c.state); res.Code != 0 || !strings.Contains(res.Stdout, `"settled":[]`) {
		c.Errorf("%s: a second recover: exit %d\n%s%s", point, res.Code, res.Stdout, res.Stderr)
	}
	c.must("audit", "verify", "--state-dir", c.state)
	ledger := c.ledger()
	if len(ledger.Open) > 0 {
		c.Errorf("%s: %d intents are open", point, len(ledger.Open))
	}
	vault := c.run("vault", "verify", "--state-dir", c.state)
	// A pack that was not on record when the power went away is named and no
	// harm: its messages were not removed.
	for line := range strings.Lines(vault.Stdout) {
		if !strings.Contains(line, " is planted") && !strings.Contains(line, "all as the audit log says") {
			c.Errorf("%s: vault verify: %s%s", point, line, vault.Stderr)
		}
	}
	for _, id := range ids {
		switch found := c.where(id); {
		case len(found) > 1:
			c.Errorf("%s: %s is in %v", point, id, found)
		case len(found) == 0 && !kept(ledger, id):
			c.Errorf("%s: %s is in no queue and not in the vault", point, id)
		}
	}
}

// stillDone checks after a cut what a verb had said before it.
func (c *cutting) stillDone(v verb, id string, ledger *record.Ledger) {
	c.Helper()
	at, good := fmt.Sprint(c.where(id)), false
	switch v.name {
	case "hold":
		good = at == "[hold]"
	case "put-off":
		good = at == "[deferred]"
	case "delete":
		good = at == "[]" && kept(ledger, id)
	case "restore":
		for _, copied := range ledger.Items {
			good = good || string(copied.ID) == id && copied.Restored != "" && fmt.Sprint(c.where(string(copied.Restored))) == "[hold]"
		}
	}
	if !good {
		c.Errorf("%s was done before the power went away, and %s is in %s", v.name, id, at)
	}
}

// ledger computes what the audit log says, from the disk that was cut.
func (c *cutting) ledger() *record.Ledger {
	c.Helper()
	return c.ledgerAt(filepath.Join(c.state, "audit"))
}
