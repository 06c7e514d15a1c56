package postfix

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The JSON of the vocabulary is a contract: sealed plans, snapshots and the
// audit log carry it, and programs of other people read it. A difference here
// is a break of docs/json.md, not a test to be updated.

func pinned(t *testing.T, value any, want string) {
	t.Helper()
	got, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%T (-want +got):\n%s", value, diff)
	}
	back := reflect.New(reflect.TypeOf(value))
	if err := json.Unmarshal(got, back.Interface()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(value, back.Elem().Interface()); diff != "" {
		t.Errorf("%T does not come back as it was:\n%s", value, diff)
	}
}

var (
	arrival = time.Date(2026, 11, 20, 3, 14, 15, 926535000, time.UTC)
	created = arrival.Truncate(time.Second)
)

func TestMessageIsPinned(t *testing.T) {
	pinned(t, Message{
		Queue: Deferred, ID: "9FBF1140142", Inode: 1311042,
		Arrival: arrival, Created: created, Changed: arrival, NextTry: arrival, Expires: arrival,
		Size: 18, ContentLength: 19, DataOffset: 228, FileSize: 250,
		Sender: "a@x.org", TotalRecipients: 2, Done: 1,
		Recipients: []Recipient{{
			Address: "b@y.org", Original: "c@y.org", Offset: 217, NextHop: "[mx.y.org]:25",
			Reason: "connect to mx.y.org[192.0.2.1]:25: Connection refused", Status: "4.4.1", Host: "mx.y.org", Cause: RemoteDown,
		}},
		Bounces:     []Failure{{Address: "d@y.org", Offset: 99, Status: "5.1.1", Reason: "unknown"}},
		ForceExpire: true, FlushRequested: true, SMTPUTF8: true,
		Client:   Client{Name: "c.example", Address: "192.0.2.7", Helo: "h", Protocol: "ESMTP"},
		SASLUser: "alice", Filter: "smtp:[127.0.0.1]:10026", Redirect: "e@y.org", MessageID: "<1@x>", Damage: "none",
	}, `{
 "queue": "deferred",
 "id": "9FBF1140142",
 "inode": 1311042,
 "arrival": "2026-11-20T03:14:15.926535Z",
 "created": "2026-11-20T03:14:15Z",
 "changed": "2026-11-20T03:14:15.926535Z",
 "next_try": "2026-11-20T03:14:15.926535Z",
 "expires": "2026-11-20T03:14:15.926535Z",
 "size": 18,
 "content_length": 19,
 "data_offset": 228,
 "file_size": 250,
 "sender": "a@x.org",
 "recipients": [
  {
   "address": "b@y.org",
   "original": "c@y.org",
   "offset": 217,
   "next_hop": "[mx.y.org]:25",
   "reason": "connect to mx.y.org[192.0.2.1]:25: Connection refused",
   "status": "4.4.1",
   "host": "mx.y.org",
   "cause": "remote-down"
  }
 ],
 "total_recipients": 2,
 "done": 1,
 "bounces": [
  {
   "address": "d@y.org",
   "offset": 99,
   "status": "5.1.1",
   "reason": "unknown"
  }
 ],
 "force_expire": true,
 "flush_requested": true,
 "smtputf8": true,
 "client": {
  "name": "c.example",
  "address": "192.0.2.7",
  "helo": "h",
  "protocol": "ESMTP"
 },
 "sasl_user": "alice",
 "filter": "smtp:[127.0.0.1]:10026",
 "redirect": "e@y.org",
 "message_id": "\u003c1@x\u003e",
 "damage": "none"
}`)
}

func TestFingerprintIsPinned(t *testing.T) {
	pinned(t, Fingerprint{Instance: "postfix", ID: "9FBF1140142", Inode: 1311042, Arrival: arrival, Size: 18, Sender: "a@x.org", Digest: "sha256:00"}, `{
 "instance": "postfix",
 "id": "9FBF1140142",
 "inode": 1311042,
 "arrival": "2026-11-20T03:14:15.926535Z",
 "size": 18,
 "sender": "a@x.org",
 "digest": "sha256:00"
}`)
}

func TestInstanceIsPinned(t *testing.T) {
	pinned(t, Instance{
		Name: "postfix-out", ConfigDir: "/etc/postfix-out", QueueDir: "/var/spool/postfix-out", DataDir: "/var/lib/postfix-out",
		Version: "3.7.11", Hostname: "relay.example", Enabled: true, MailOwner: "postfix", SetgidGroup: "postdrop", LongIDs: true,
		HashedQueues: []string{"deferred", "defer"}, HashDepth: 1,
		MaxLifetime: 120 * time.Hour, BounceLifetime: 24 * time.Hour, MinBackoff: 5 * time.Minute, MaxBackoff: 4000 * time.Second, QueueRunDelay: 5 * time.Minute,
		Relayhost: "[gw.example]:587", DefaultTransport: "smtp", RelayTransport: "relay", RelayDomains: []string{"a.example"}, TransportMaps: []string{"hash:/etc/postfix/transport"},
		CommandDir: "/usr/sbin", DaemonDir: "/usr/lib/postfix/sbin",
	}, `{
 "name": "postfix-out",
 "config_dir": "/etc/postfix-out",
 "queue_dir": "/var/spool/postfix-out",
 "data_dir": "/var/lib/postfix-out",
 "version": "3.7.11",
 "hostname": "relay.example",
 "enabled": true,
 "mail_owner": "postfix",
 "setgid_group": "postdrop",
 "long_ids": true,
 "hashed_queues": [
  "deferred",
  "defer"
 ],
 "hash_depth": 1,
 "relayhost": "[gw.example]:587",
 "default_transport": "smtp",
 "relay_transport": "relay",
 "relay_domains": [
  "a.example"
 ],
 "transport_maps": [
  "hash:/etc/postfix/transport"
 ],
 "command_dir": "/usr/sbin",
 "daemon_dir": "/usr/lib/postfix/sbin",
 "max_lifetime_seconds": 432000,
 "bounce_lifetime_seconds": 86400,
 "min_backoff_seconds": 300,
 "max_backoff_seconds": 4000,
 "queue_run_delay_seconds": 300
}`)
}

func TestFingerprintTellsMessagesApart(t *testing.T) {
	m := Message{ID: "9FBF1140142", Inode: 1311042, Arrival: arrival, Size: 18, Sender: "a@x.org"}
	f := m.Fingerprint("postfix")
	if !f.Same(m.Fingerprint("postfix")) {
		t.Fatal("a message differs from itself")
	}
	for name, change := range map[string]func(*Fingerprint){
		"instance": func(f *Fingerprint) { f.Instance = "other" },
		"ID":       func(f *Fingerprint) { f.ID = "9FBF2140142" },
		"inode":    func(f *Fingerprint) { f.Inode++ },
		"arrival":  func(f *Fingerprint) { f.Arrival = f.Arrival.Add(time.Microsecond) },
		"size":     func(f *Fingerprint) { f.Size++ },
		"sender":   func(f *Fingerprint) { f.Sender += "x" },
	} {
		other := f
		change(&other)
		if f.Same(other) {
			t.Errorf("another %s passes for the same message", name)
		}
	}
	with, without := f, f
	with.Digest = "sha256:1"
	if !with.Same(without) {
		t.Error("a digest that only one side has tells them apart")
	}
	without.Digest = "sha256:2"
	if with.Same(without) {
		t.Error("two digests that differ pass for the same message")
	}
}

func TestExpiresAsQmgrDecides(t *testing.T) {
	in := Instance{MaxLifetime: 48 * time.Hour, BounceLifetime: 24 * time.Hour}
	if got := in.Expires(created, "a@b"); !got.Equal(created.Add(48 * time.Hour)) {
		t.Errorf("a message expires at %s", got)
	}
	if got := in.Expires(created, ""); !got.Equal(created.Add(24 * time.Hour)) {
		t.Errorf("a bounce expires at %s", got)
	}
	in.BounceLifetime = 96 * time.Hour
	if got := in.Expires(created, ""); !got.Equal(created.Add(48 * time.Hour)) {
		t.Errorf("a bounce outlives mail: %s", got)
	}
	if got := (Instance{}).Expires(created, "a@b"); !got.IsZero() {
		t.Errorf("an instance without known lifetimes expires mail at %s", got)
	}
}

func TestNextHopInPostfixOrder(t *testing.T) {
	cases := []struct {
		in        Instance
		m         Message
		recipient string
		want      string
	}{
		{Instance{DefaultTransport: "smtp"}, Message{}, "a@Dest.Example", "dest.example"},
		{Instance{Relayhost: "[gw]:587"}, Message{}, "a@dest.example", "[gw]:587"},
		{Instance{Relayhost: "[gw]", DefaultTransport: "smtp:[other]"}, Message{}, "a@dest.example", "[other]"},
		{Instance{Relayhost: "[gw]"}, Message{Filter: "scan:[127.0.0.1]:10025"}, "a@dest.example", "[127.0.0.1]:10025"},
		{Instance{}, Message{Filter: "scan:"}, "a@dest.example", "scan"},
		{Instance{}, Message{Redirect: "x@elsewhere.example"}, "a@dest.example", "elsewhere.example"},
		{Instance{}, Message{}, "local", ""},
	}
	for _, c := range cases {
		if got := c.in.NextHop(&c.m, c.recipient); got != c.want {
			t.Errorf("%+v %+v %q goes to %q, want %q", c.in, c.m, c.recipient, got, c.want)
		}
	}
}
