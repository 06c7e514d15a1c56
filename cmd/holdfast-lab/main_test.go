package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"holdfast/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

// cli runs a command line as the shell would and returns what it printed.
func cli(t *testing.T, wantCode int, argv ...string) (out, talk string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), argv, screen{out: &stdout, talk: &stderr}); code != wantCode {
		t.Fatalf("%q: exit %d, want %d; stderr: %s", argv, code, wantCode, stderr.String())
	}
	return stdout.String(), stderr.String()
}

func TestFromUpToDown(t *testing.T) {
	const name = "cli-test"
	cli(t, 0, "up", "--name", name, "--scenario", "one-domain-dead", "--long-ids", "-p", "queue_run_delay=77s")
	t.Cleanup(func() {
		if l, err := lab.Open(name); err == nil {
			l.Down()
		}
	})
	if out, _ := cli(t, 0, "list"); !strings.Contains(out, name) {
		t.Errorf("list does not name the lab: %s", out)
	}
	out, _ := cli(t, 0, "status", name, "-o", "json")
	var st status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatal(err)
	}
	if len(st.Queues) != 1 || st.Queues[0].Messages["deferred"] != 100 || len(st.Faults) != 1 {
		t.Errorf("status: %s", out)
	}
	cli(t, 0, "exec", name, "--", "sh", "-c", `test "$(postconf -h queue_run_delay)" = 77s`)
	cli(t, 7, "exec", name, "--", "sh", "-c", "exit 7")
	cli(t, 0, "fault", name, "net.block-smtp", "mode=reset")
	cli(t, 0, "inject", name, "--count", "3", "--domain", "alpha.example")
	cli(t, 0, "cure", name, "all")
	cli(t, 0, "account", name)
	_, talk := cli(t, 1, "up", "--name", name)
	if !strings.Contains(talk, "already up") {
		t.Errorf("a second lab of the name: %s", talk)
	}
	cli(t, 0, "down", name)
	_, talk = cli(t, 1, "status", name)
	if !strings.Contains(talk, "no lab") {
		t.Errorf("status of a lab that is down: %s", talk)
	}
}

func TestUsageErrorsSayWhatToDo(t *testing.T) {
	for _, argv := range [][]string{
		{"up", "--spool", "floppy:1M"}, {"up", "-p", "novalue"}, {"exec", "x"}, {"fault"}, {"down"}, {"list", "-o", "xml"}, {"up", "--nosuch"},
	} {
		if _, talk := cli(t, 2, argv...); !strings.HasPrefix(talk, "holdfast-lab: ") {
			t.Errorf("%q says %q", argv, talk)
		}
	}
	for _, argv := range [][]string{{"up", "--scenario", "nosuch"}, {"up", "--name", "Not_A_Name"}, {"down", "nosuch"}} {
		cli(t, 1, argv...)
	}
}
