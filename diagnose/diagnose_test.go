package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/observe"
	"holdfast/postfix"
)

var now = time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)

// relay builds what one look at a relay sees.
type relay struct {
	in       postfix.Instance
	messages []*postfix.Message
	log      *observe.Log
	host     *observe.Host
	next     int
}

func newRelay() *relay {
	return &relay{
		in: postfix.Instance{
			Name: "postfix", ConfigDir: "/etc/postfix", QueueDir: "/var/spool/postfix", Enabled: true,
			MaxLifetime: 120 * time.Hour, BounceLifetime: 120 * time.Hour, QueueRunDelay: 5 * time.Minute,
			MinBackoff: 5 * time.Minute, MaxBackoff: 4000 * time.Second,
		},
		log: &observe.Log{
			Sources: []observe.LogSource{{Name: "/var/log/mail.log", Trust: observe.TrustPlain}}, Trust: observe.TrustPlain,
			From: now.Add(-time.Hour), To: now,
			Domains: map[string]*observe.LogDomain{}, Servers: map[string]*observe.LogServer{}, Holds: map[postfix.QueueID]observe.Hold{},
		},
		host: &observe.Host{
			At:       now,
			Master:   observe.Master{Known: true, Running: true, PID: 100},
			Manager:  observe.Manager{Known: true, State: "well", PID: 101, Started: now.Add(-24 * time.Hour)},
			Storage:  observe.Storage{Known: true, Path: "/var/spool/postfix", Mount: "/", Type: "ext4", Bytes: 1 << 40, Free: 1 << 39, Inodes: 1 << 20, FreeFiles: 1 << 19, WriteTried: true, Written: true},
			Settings: observe.Settings{Known: true, ActiveLimit: 20000, MessageSizeLimit: 10240000},
			DNS:      observe.DNS{Known: true, Path: "/etc/resolv.conf", Servers: []observe.Resolver{{Address: "192.0.2.53"}}},
			Egress:   observe.Egress{Known: true},
		},
	}
}

// mail queues n messages for a domain that wait for a reason.
func (r *relay) mail(n int, q postfix.Queue, domain, reason string) *relay {
	for range n {
		r.next++
		arrival := now.Add(-30 * time.Minute).Add(time.Duration(r.next) * time.Millisecond)
		m := &postfix.Message{
			Queue: q, ID: postfix.QueueID(fmt.Sprintf("%05X%06X", r.next, r.next)), Inode: uint64(r.next), Arrival: arrival, Created: arrival.Truncate(time.Second),
			Changed: now.Add(-20 * time.Minute), NextTry: now.Add(10 * time.Minute), Size: 1000, Sender: "a@customer.example",
			Recipients: []postfix.Recipient{{Address: fmt.Sprintf("u%d@%s", r.next, domain), Offset: 100, NextHop: domain, Reason: reason, Cause: postfix.Classify("", reason)}},
		}
		r.messages = append(r.messages, m)
	}
	return r
}

// delivered adds deliveries to the log, the last one a moment ago.
func (r *relay) delivered(n int64, domain, server string) *relay {
	d := r.domain(domain)
	d.Delivered += n
	d.FirstDelivered, d.LastDelivered, d.DeliveredAfter = now.Add(-time.Hour), now.Add(-time.Second), n
	r.log.Total.Delivered += n
	r.log.Servers[server] = &observe.LogServer{Delivered: n, LastDelivered: now.Add(-time.Second), Domain: domain}
	return r
}

// failed adds failed attempts to the log, all after the deliveries.
func (r *relay) failed(n int64, domain, reason string) *relay {
	d := r.domain(domain)
	d.Deferred += n
	d.FirstDeferred, d.LastDeferred, d.DeliveredAfter = now.Add(-20*time.Minute), now.Add(-10*time.Minute), 0
	d.Reasons = map[postfix.Cause]*observe.LogReason{postfix.Classify("", reason): {Attempts: n, First: d.FirstDeferred, Last: d.LastDeferred, Text: reason}}
	r.log.Total.Deferred += n
	return r
}

func (r *relay) domain(name string) *observe.LogDomain {
	d := r.log.Domains[name]
	if d == nil {
		d = &observe.LogDomain{}
		r.log.Domains[name] = d
	}
	return d
}

// asks adds an answer of the name server.
func (r *relay) asks(name, outcome string, control bool) *relay {
	s := &r.host.DNS.Servers[0]
	a := observe.Answer{Name: name, Type: "MX", Outcome: outcome, Control: control, Latency: 3 * time.Millisecond}
	if outcome == "answer" {
		a.Records = 1
	}
	s.Answers = append(s.Answers, a)
	return r
}

// reaches adds a connection of our own.
func (r *relay) reaches(hop, address string, control bool, failure string) *relay {
	one := observe.Reach{Server: "mx." + hop, Address: netip.MustParseAddr(address), Port: 25, Hops: []string{hop}, Control: control, At: now, Stage: "done"}
	if failure != "" {
		one.Stage, one.Failed, one.Text, one.Cause = "connect", true, failure, postfix.RemoteDown
	}
	r.host.Egress.Reaches = append(r.host.Egress.Reaches, one)
	return r
}

func (r *relay) sight() Sight {
	shard := observe.NewShard()
	for _, m := range r.messages {
		shard.Add(m)
	}
	snap := observe.Build(r.in, observe.FromSpool, now, now, postfix.Queues(), []*observe.Shard{shard})
	return Sight{Snapshot: snap, Log: r.log, Host: r.host, Now: now}
}

const (
	servfail  = "Host or domain name not found. Name service error for name=%s type=MX: Host not found, try again"
	timeout   = "connect to mx.%s[%s]:25: Connection timed out"
	rate      = "host mx.big.example[198.51.100.30] said: 450 4.7.1 Message rate limit exceeded, try again later (in reply to RCPT TO command)"
	greylist  = "host mx.grey.example[198.51.100.40] said: 450 4.2.0 Greylisted, see http://postgrey.example/ (in reply to RCPT TO command)"
	blocked   = "host mx.strict.example[198.51.100.50] refused to talk to me: 554 5.7.1 Your address is listed in our blocklist"
	rejecting = "host mx.moody.example[198.51.100.60] said: 451 4.3.0 Not now, thank you (in reply to end of DATA command)"
)

func TestNamedCauses(t *testing.T) {
	timedOut := func(domain, address string) string { return fmt.Sprintf(timeout, domain, address) }
	for name, c := range map[string]struct {
		relay *relay
		want  []string // cause scope subject, in order
		state State
	}{
		"nothing waits": {newRelay(), nil, Flowing},
		"healthy and busy": {
			newRelay().mail(300, postfix.Active, "good.example", "").mail(3, postfix.Deferred, "typo.example", fmt.Sprintf(servfail, "typo.example")).
				mail(2, postfix.Deferred, "gone.example", timedOut("gone.example", "203.0.113.9")).delivered(5000, "good.example", "mx.good.example[198.51.100.1]:25"), nil, Flowing,
		},
		"name server dead": {
			newRelay().mail(50, postfix.Deferred, "a.example", fmt.Sprintf(servfail, "a.example")).mail(50, postfix.Deferred, "b.example", fmt.Sprintf(servfail, "b.example")).
				asks("a.example", "servfail", false).asks("b.example", "servfail", false).asks("good.example", "servfail", true),
			[]string{"dns global 192.0.2.53"},
			NotFlowing,
		},
		"one domain's name servers": {
			newRelay().mail(50, postfix.Deferred, "a.example", fmt.Sprintf(servfail, "a.example")).delivered(100, "good.example", "mx.good.example[198.51.100.1]:25").
				asks("a.example", "servfail", false).asks("good.example", "answer", true),
			[]string{"dns destination a.example"},
			Flowing,
		},
		"name server mended": {
			newRelay().mail(50, postfix.Deferred, "a.example", fmt.Sprintf(servfail, "a.example")).asks("a.example", "answer", false),
			[]string{"backoff-wait destination a.example"},
			NotFlowing,
		},
		"port 25 blocked": {
			newRelay().mail(40, postfix.Deferred, "a.example", timedOut("a.example", "198.51.100.10")).mail(30, postfix.Deferred, "b.example", timedOut("b.example", "203.0.113.10")).
				delivered(100, "good.example", "mx.good.example[192.0.2.99]:25").
				reaches("a.example", "198.51.100.10", false, "Connection timed out").reaches("b.example", "203.0.113.10", false, "Connection timed out").reaches("good.example", "192.0.2.99", true, "Connection timed out"),
			[]string{"egress global port 25"},
			NotFlowing,
		},
		"one server down": {
			newRelay().mail(40, postfix.Deferred, "a.example", timedOut("a.example", "198.51.100.10")).delivered(100, "good.example", "mx.good.example[192.0.2.99]:25").
				reaches("a.example", "198.51.100.10", false, "Connection timed out").reaches("good.example", "192.0.2.99", true, ""),
			[]string{"remote-down destination a.example"},
			Flowing,
		},
		"server back again": {
			newRelay().mail(40, postfix.Deferred, "a.example", timedOut("a.example", "198.51.100.10")).reaches("a.example", "198.51.100.10", false, ""),
			[]string{"backoff-wait destination a.example"},
			NotFlowing,
		},
		"suspended is traced": {
			newRelay().mail(40, postfix.Deferred, "big.example", "delivery temporarily suspended: "+rate).failed(400, "big.example", rate),
			[]string{"remote-throttling destination big.example"},
			NotFlowing,
		},
		"refusals of four kinds": {
			newRelay().mail(40, postfix.Deferred, "big.example", rate).mail(30, postfix.Deferred, "grey.example", greylist).
				mail(20, postfix.Deferred, "strict.example", blocked).mail(10, postfix.Deferred, "moody.example", rejecting),
			[]string{"remote-throttling destination big.example", "greylisting destination grey.example", "reputation destination strict.example", "remote-rejecting destination moody.example"},
			NotFlowing,
		},
		"throttled no more": {
			newRelay().mail(40, postfix.Deferred, "big.example", rate).failed(400, "big.example", rate).delivered(60, "big.example", "mx.big.example[198.51.100.30]:25"),
			[]string{"backoff-wait destination big.example"},
			Flowing,
		},
		"active full": {
			func() *relay {
				r := newRelay().mail(100, postfix.Active, "slow.example", "").mail(50, postfix.Incoming, "other.example", "")
				r.host.Settings.ActiveLimit = 100
				return r
			}(),
			[]string{"active-queue-full global slow.example"},
			NotFlowing,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.relay.sight()
			v := Judge(s)
			var got []string
			for _, f := range v.Findings {
				got = append(got, fmt.Sprintf("%s %s %s", f.Cause, f.Scope, f.Subject))
				if len(f.Evidence) == 0 || len(f.Next) == 0 || len(f.Avoid) == 0 || f.Summary == "" {
					t.Errorf("%s: nothing to show or to do: %+v", f.Cause, f)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if v.State != c.state {
				t.Errorf("state is %s (%s), want %s", v.State, v.Sentence, c.state)
			}
			slices.Reverse(c.relay.messages)
			if diff := cmp.Diff(v, Judge(s)); diff != "" {
				t.Errorf("the same sight, judged twice:\n%s", diff)
			}
		})
	}
}

func TestLocalCauses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*relay)
		want   string
		says   string
	}{
		"postfix down": {func(r *relay) { r.host.Master.Running = false }, "postfix-down global ", "not running"},
		"qmgr stopped": {func(r *relay) { r.host.Manager.State = "stopped" }, "queue-manager global qmgr", "SIGSTOP"},
		"qmgr silent":  {func(r *relay) { r.host.Manager.State = "silent" }, "queue-manager global qmgr", "does not answer"},
		"qmgr absent":  {func(r *relay) { r.host.Manager.State = "absent" }, "queue-manager global qmgr", "does not exist"},
		"disk full":    {func(r *relay) { r.host.Storage.Free = 1 << 20 }, "storage-space host /", "full"},
		"no inodes":    {func(r *relay) { r.host.Storage.FreeFiles = 0 }, "storage-inodes host /", "inodes"},
		"disk hangs": {func(r *relay) {
			r.host.Storage.Written, r.host.Storage.WriteError = false, "open hangs since 4s"
		}, "storage-latency host /", "does not come back"},
		"read-only":       {func(r *relay) { r.host.Storage.ReadOnly = true }, "storage-readonly host /", "read-only"},
		"held by someone": {func(r *relay) { r.mail(5, postfix.Hold, "a.example", rejecting) }, "held-forgotten host hold", "on hold"},
		"held from active": {func(r *relay) {
			r.mail(1, postfix.Hold, "a.example", "")
			r.log.Holds[r.messages[0].ID] = observe.Hold{At: now.Add(-20 * time.Minute), By: observe.HeldByPostsuper, FromActive: true}
		}, "held-forgotten host hold", "would be LOST"},
		"mute log": {func(r *relay) {
			r.log.To = now.Add(-time.Hour)
			r.mail(5, postfix.Active, "a.example", "")
		}, "configuration host /var/log/mail.log", "mute"},
		"expiry": {func(r *relay) {
			r.delivered(100, "good.example", "mx.good.example[192.0.2.99]:25")
			r.mail(20, postfix.Deferred, "a.example", "")
			for _, m := range r.messages {
				m.Created = now.Add(-119 * time.Hour)
			}
		}, "expiry-soon global maximal_queue_lifetime", "20 messages will be returned"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay()
			c.change(r)
			v := Judge(r.sight())
			if len(v.Findings) != 1 {
				t.Fatalf("%d findings: %+v", len(v.Findings), v.Findings)
			}
			f := v.Findings[0]
			if got := fmt.Sprintf("%s %s %s", f.Cause, f.Scope, f.Subject); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if !strings.Contains(f.Summary, c.says) {
				t.Errorf("summary %q does not say %q", f.Summary, c.says)
			}
		})
	}
}

// What nobody could see is not well.
func TestBlindIsNotHealthy(t *testing.T) {
	r := newRelay()
	r.log, r.host = nil, nil
	if v := Judge(r.sight()); v.State != CannotTell {
		t.Errorf("seeing nothing but an empty queue: %s, %q", v.State, v.Sentence)
	}
	s := newRelay().sight()
	s.Snapshot = observe.Build(s.Snapshot.Instance, observe.FromSpool, now, now, []postfix.Queue{postfix.Hold}, nil)
	if v := Judge(s); v.State != CannotTell {
		t.Errorf("seeing no queue but hold: %s, %q", v.State, v.Sentence)
	}
}

// What Holdfast was to do and did not is a finding, and nothing about mail.
func TestOverdueIsNamed(t *testing.T) {
	for keeper, says := range map[bool]string{false: "no keeper lives", true: "its attempts fail"} {
		sight := newRelay().sight()
		want := Judge(sight)
		sight.Late = []LateDuty{{What: "snapshot", Object: "20260314-0300", When: now.Add(-time.Hour), Keeper: keeper}}
		v := Judge(sight)
		if v.State != want.State || v.Sentence != want.Sentence {
			t.Errorf("with something overdue: %s, %q", v.State, v.Sentence)
		}
		if len(v.Findings) != 1 || v.Findings[0].Cause != postfix.Overdue || !strings.Contains(v.Findings[0].Summary, says) {
			t.Fatalf("%+v", v.Findings)
		}
		if got := strings.Join(v.Findings[0].Next[0].Argv, " "); !strings.HasSuffix(got, " tick") {
			t.Errorf("the next step is %q", got)
		}
	}
}

// What Holdfast holds is no forgotten mail before the time at which somebody is
// to look again, and what is to be done with it afterwards is a command.
func TestOwnHoldsAreReviewed(t *testing.T) {
	for name, c := range map[string]struct {
		own        int // of three, from the first on
		review     time.Duration
		remembered bool
		finding    int // messages that it names
		state      string
		next       string
	}{
		"all in time":           {own: 3, review: time.Hour, state: "Holdfast has 3 messages on hold"},
		"all overdue":           {own: 3, review: -time.Hour, finding: 3, next: "release --queue hold"},
		"overdue and in memory": {own: 3, review: -time.Hour, remembered: true, finding: 3, next: "postfix reload"},
		"one of somebody else":  {own: 2, review: time.Hour, finding: 1, next: "queue --queue hold"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay().mail(3, postfix.Hold, "a.example", rejecting)
			sight := r.sight()
			sight.Holds = map[HeldFile]OwnHold{}
			for _, m := range r.messages[:c.own] {
				sight.Holds[HeldFile{m.ID, m.Inode}] = OwnHold{Review: now.Add(c.review), Remembered: c.remembered}
			}
			v := Judge(sight)
			if c.finding == 0 {
				if len(v.Findings) > 0 || !strings.Contains(v.Sentence, c.state) {
					t.Errorf("%q, findings %+v", v.Sentence, v.Findings)
				}
				return
			}
			if len(v.Findings) != 1 || v.Findings[0].Cause != postfix.HeldForgotten || v.Findings[0].Waiting != c.finding {
				t.Fatalf("findings %+v", v.Findings)
			}
			if first := strings.Join(v.Findings[0].Next[0].Argv, " "); !strings.Contains(first, c.next) {
				t.Errorf("next is %q", first)
			}
		})
	}
}

// A hold that the queue manager cannot remember is safe to release.
func TestHoldsThatAreSafe(t *testing.T) {
	for name, change := range map[string]func(*relay, *postfix.Message){
		"another queue manager":  func(r *relay, m *postfix.Message) { m.Changed = r.host.Manager.Started.Add(-time.Minute) },
		"it waits by its reason": func(_ *relay, m *postfix.Message) { m.Recipients[0].Reason = rejecting },
		"a rule held it": func(r *relay, m *postfix.Message) {
			r.log.Holds[m.ID] = observe.Hold{At: now, By: observe.HeldByRule}
		},
		"the log has its whole life": func(r *relay, m *postfix.Message) {
			r.log.Holds[m.ID] = observe.Hold{At: now, By: observe.HeldByPostsuper}
		},
		"postfix is down": func(r *relay, _ *postfix.Message) { r.host.Master.Running = false },
	} {
		r := newRelay().mail(1, postfix.Hold, "a.example", "")
		change(r, r.messages[0])
		if v := newView(r.sight()); v.held.risky+v.held.unsure != 0 {
			t.Errorf("%s: %d risky, %d unsure", name, v.held.risky, v.held.unsure)
		}
	}
	r := newRelay().mail(1, postfix.Hold, "a.example", "")
	if v := newView(r.sight()); v.held.unsure != 1 {
		t.Errorf("nothing tells where it was held from: %d unsure", v.held.unsure)
	}
}

func TestQuestionsLeaveProvidersAlone(t *testing.T) {
	r := newRelay().mail(40, postfix.Deferred, "big.example", rate).mail(30, postfix.Deferred, "a.example", fmt.Sprintf(timeout, "a.example", "198.51.100.10")).
		mail(20, postfix.Deferred, "lost.example", fmt.Sprintf(servfail, "lost.example")).mail(3, postfix.Deferred, "$(reboot).example", fmt.Sprintf(servfail, "x")).
		delivered(100, "good.example", "mx.good.example[192.0.2.99]:25").delivered(100, "near.example", "mx.near.example[198.51.100.11]:25")
	s := r.sight()
	q := Questions(s.Snapshot, s.Log, now)
	var got []string
	for _, n := range q.Names {
		got = append(got, fmt.Sprintf("%s %s %v", n.Type, n.Name, n.Control))
	}
	for _, n := range q.Servers {
		got = append(got, fmt.Sprintf("%s %s:%d %v", n.Hop, n.Address, n.Port, n.Control))
	}
	want := []string{
		"MX lost.example false", "MX good.example true", "MX near.example true", "MX big.example true",
		"a.example 198.51.100.10:25 false", "good.example 192.0.2.99:25 true", "near.example 198.51.100.11:25 true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("questions (-want +got):\n%s", diff)
	}
}
