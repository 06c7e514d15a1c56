package probe

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/postfix"
)

// These tests run Postfix's own commands on configurations of their own.

func configure(t *testing.T, mainCF string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"main.cf": mainCF, "master.cf": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Postfix waits until a main.cf is two seconds old, since it may still be
	// being written.
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(filepath.Join(dir, "main.cf"), old, old); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInstanceAsPostconfTellsIt(t *testing.T) {
	dir := configure(t, "compatibility_level=3.6\nqueue_directory=/srv/spool\nmulti_instance_name=postfix-out\n"+
		"hash_queue_names=deferred, defer,hold\nhash_queue_depth=2\nenable_long_queue_ids=yes\n"+
		"maximal_queue_lifetime=36h\nbounce_queue_lifetime=2\nrelayhost=[gw.example]:587\nminimal_backoff_time = 90\nmyhostname=relay.example\n")
	found, gaps, err := Instances(context.Background(), "", []string{dir})
	if err != nil || len(gaps) != 0 || len(found) != 1 {
		t.Fatalf("%v, %v, %v", found, gaps, err)
	}
	in := found[0]
	want := postfix.Instance{
		Name: "postfix-out", ConfigDir: dir, QueueDir: "/srv/spool", Enabled: true, MailOwner: "postfix", SetgidGroup: "postdrop",
		LongIDs: true, HashedQueues: []string{"deferred", "defer", "hold"}, HashDepth: 2, SyslogName: "postfix-out",
		MaxLifetime: 36 * time.Hour, BounceLifetime: 48 * time.Hour, MinBackoff: 90 * time.Second,
		MaxBackoff: 4000 * time.Second, QueueRunDelay: 300 * time.Second,
		Relayhost: "[gw.example]:587", DefaultTransport: "smtp", RelayTransport: "relay", Hostname: "relay.example",
		DataDir: in.DataDir, Version: in.Version, CommandDir: in.CommandDir, DaemonDir: in.DaemonDir,
		RelayDomains: in.RelayDomains, TransportMaps: in.TransportMaps,
	}
	if diff := cmp.Diff(want, in); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(in.Version, "3.") || in.CommandDir == "" || in.DaemonDir == "" {
		t.Errorf("version %q, commands in %q, daemons in %q", in.Version, in.CommandDir, in.DaemonDir)
	}
}

func TestConfigurationsThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		dir  string
		kind postfix.Kind
		says string
	}{
		"no such directory":     {"/no/such/dir", postfix.Usage, "no such file"},
		"a file":                {file, postfix.Usage, "not a directory"},
		"a relative path":       {".", postfix.Usage, "not an absolute path"},
		"no main.cf":            {t.TempDir(), postfix.CannotTell, "main.cf"},
		"main.cf of garbage":    {configure(t, "this is no parameter\n"), postfix.CannotTell, "line 1"},
		"a broken macro":        {configure(t, "relayhost=$a${\n"), postfix.CannotTell, "macro"},
		"a relative spool":      {configure(t, "queue_directory=spool\n"), postfix.CannotTell, "queue_directory"},
		"a lifetime of letters": {configure(t, "maximal_queue_lifetime=long\n"), postfix.CannotTell, "maximal_queue_lifetime"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, _, err := Instances(context.Background(), "", []string{c.dir})
			var e *postfix.Error
			if !errors.As(err, &e) || e.Kind != c.kind || e.Hint == "" || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v (kind %v)", err, e)
			}
		})
	}
}

func TestOneBrokenInstanceLeavesTheOthers(t *testing.T) {
	good, bad := configure(t, "compatibility_level=3.6\n"), configure(t, "garbage\n")
	found, gaps, err := Instances(context.Background(), "", []string{bad, good})
	if err != nil || len(found) != 1 || found[0].ConfigDir != good || len(gaps) != 1 || gaps[0].Object != bad {
		t.Errorf("found %v, gaps %v, error %v", found, gaps, err)
	}
}

func TestInstancesWithOneNameAreToldApart(t *testing.T) {
	a, b := configure(t, "multi_instance_name=postfix-x\n"), configure(t, "multi_instance_name=postfix-x\n")
	found, _, err := Instances(context.Background(), "", []string{a, b})
	if err != nil || len(found) != 2 || found[0].Name == found[1].Name {
		t.Errorf("%v, %v", found, err)
	}
}

func TestNoPostfix(t *testing.T) {
	_, _, err := Instances(context.Background(), t.TempDir(), nil)
	var e *postfix.Error
	if !errors.As(err, &e) || e.Kind != postfix.CannotTell || !errors.Is(err, ErrNoPostfix) || e.Hint == "" {
		t.Errorf("error %v", err)
	}
}

// TestListOfInstances feeds postmulti's output by a program in its place.
func TestListOfInstances(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\nprintf '%s\\n' '-               -               y         /etc/postfix' 'postfix-out     mta             n         /etc/postfix out'\n"
	if err := os.WriteFile(filepath.Join(dir, "postmulti"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	list, err := finder{dir}.list(context.Background())
	want := []listedInstance{{"/etc/postfix", true}, {"/etc/postfix out", false}}
	if err != nil || !cmp.Equal(want, list, cmp.AllowUnexported(listedInstance{})) {
		t.Errorf("%v, %v", list, err)
	}
}

func TestTransportsAsPostfixOrdersThem(t *testing.T) {
	dir := configure(t, "compatibility_level=3.6\n")
	table := filepath.Join(dir, "transport")
	text := "one.example slow:\n.two.example smtp:[hub.two.example]:2525\nthree.example :\n* relay:[fallback.example]\n"
	if err := os.WriteFile(table, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("postmap", "-c", dir, "hash:"+table).CombinedOutput(); err != nil {
		t.Fatalf("postmap: %v: %s", err, out)
	}
	in := postfix.Instance{ConfigDir: dir, TransportMaps: []string{"hash:" + table}}
	routes, gaps := Transports(context.Background(), in, []string{"one.example", "mx.two.example", "two.example", "three.example", "four.example", ""})
	want := map[string]string{
		"one.example": "one.example", "mx.two.example": "[hub.two.example]:2525", "two.example": "[fallback.example]",
		"four.example": "[fallback.example]", "": "[fallback.example]",
	}
	if len(gaps) != 0 || !cmp.Equal(want, routes) {
		t.Errorf("gaps %v, routes: %s", gaps, cmp.Diff(want, routes))
	}
	in.TransportMaps = []string{"hash:" + table + ".missing"}
	routes, gaps = Transports(context.Background(), in, []string{"one.example"})
	if len(routes) != 0 || len(gaps) != 1 || gaps[0].Hint == "" {
		t.Errorf("a table that is not there: routes %v, gaps %v", routes, gaps)
	}
}

func TestTimesOfMainCF(t *testing.T) {
	for value, want := range map[string]time.Duration{"5d": 120 * time.Hour, "3": 72 * time.Hour, "0": 0, "1W": 168 * time.Hour, "90s": 90 * time.Second} {
		if got, err := parseTime(value, "maximal_queue_lifetime"); err != nil || got != want {
			t.Errorf("%q is %v, %v; want %v", value, got, err, want)
		}
	}
	for _, value := range []string{"", "d", "-1d", "5x", "99999999999d"} {
		if got, err := parseTime(value, "maximal_queue_lifetime"); err == nil {
			t.Errorf("%q passes for %v", value, got)
		}
	}
}
