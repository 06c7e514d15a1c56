package plan_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
)

var draftNow = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

// queued is a message as the spool gives it.
func queued(id string, q postfix.Queue, change ...func(*postfix.Message)) *postfix.Message {
	m := &postfix.Message{
		Queue: q, ID: postfix.QueueID(id), Inode: uint64(1000 + len(id)), Arrival: draftNow.Add(-time.Hour),
		Expires: draftNow.Add(time.Hour), Size: 700, FileSize: 1000, Sender: "kim@shop.example",
		Recipients: []postfix.Recipient{{Address: "lee@corp.example", NextHop: "corp.example"}},
	}
	for _, f := range change {
		f(m)
	}
	return m
}

func circumstances() plan.Circumstances {
	return plan.Circumstances{
		Instance: postfix.Instance{Name: "mx"}, Now: draftNow,
		Held: func(m *postfix.Message) plan.Holding {
			return plan.Holding{Ours: !strings.HasPrefix(string(m.ID), "F"), Remembered: strings.HasSuffix(string(m.ID), "A")}
		},
	}
}

// TestWhatIsSpared names for each verb what becomes of a message in each
// situation: "" is taken.
func TestWhatIsSpared(t *testing.T) {
	pending := func(m *postfix.Message) { m.Bounces = []postfix.Failure{{Address: "x@y.example"}} }
	finished := func(m *postfix.Message) { m.Recipients = nil }
	damaged := func(m *postfix.Message) { m.Damage = "it ends in the middle" }
	unseen := func(m *postfix.Message) { m.Inode = 0 }
	cases := map[string]struct {
		m    *postfix.Message
		want map[plan.Verb]string // of the others, ""
		opts plan.Options
	}{
		"deferred": {m: queued("D1", postfix.Deferred), want: map[plan.Verb]string{plan.Release: plan.SkipNotHeld}},
		"incoming": {m: queued("D1", postfix.Incoming), want: map[plan.Verb]string{plan.Release: plan.SkipNotHeld, plan.Try: plan.SkipQueue}},
		"active": {m: queued("D1", postfix.Active), want: map[plan.Verb]string{
			plan.Hold: plan.SkipActive, plan.Release: plan.SkipNotHeld, plan.Try: plan.SkipActive,
			plan.Requeue: plan.SkipActive, plan.Expire: plan.SkipActive, plan.Delete: plan.SkipActive,
		}},
		"active asked for": {m: queued("D1", postfix.Active), opts: plan.Options{Active: true}, want: map[plan.Verb]string{
			plan.Release: plan.SkipNotHeld, plan.Try: plan.SkipActive, plan.Requeue: plan.SkipActive,
		}},
		"held by us": {m: queued("D1", postfix.Hold), want: map[plan.Verb]string{plan.Hold: plan.SkipHeld}},
		"held from active": {m: queued("D1A", postfix.Hold), want: map[plan.Verb]string{
			plan.Hold: plan.SkipHeld, plan.Release: plan.SkipHeldActive, plan.Try: plan.SkipHeldActive,
			plan.Requeue: plan.SkipHeldActive, plan.Expire: plan.SkipHeldActive,
		}},
		"held by another": {m: queued("F1", postfix.Hold), want: map[plan.Verb]string{
			plan.Hold: plan.SkipHeld, plan.Release: plan.SkipForeign, plan.Try: plan.SkipForeign,
			plan.Requeue: plan.SkipForeign, plan.Expire: plan.SkipForeign, plan.Delete: plan.SkipForeign,
		}},
		"held by another, asked for": {m: queued("F1", postfix.Hold), opts: plan.Options{Foreign: true}, want: map[plan.Verb]string{plan.Hold: plan.SkipHeld}},
		"held by another from active": {m: queued("F1A", postfix.Hold), opts: plan.Options{Foreign: true}, want: map[plan.Verb]string{
			plan.Hold: plan.SkipHeld, plan.Release: plan.SkipHeldActive, plan.Try: plan.SkipHeldActive,
			plan.Requeue: plan.SkipHeldActive, plan.Expire: plan.SkipHeldActive,
		}},
		"a bounce is pending": {m: queued("D1", postfix.Deferred, pending), want: map[plan.Verb]string{
			plan.Release: plan.SkipNotHeld, plan.Requeue: plan.SkipPending,
		}},
		"finished": {m: queued("D1", postfix.Hold, finished), want: map[plan.Verb]string{
			plan.Hold: plan.SkipHeld, plan.Requeue: plan.SkipFinished, plan.Try: plan.SkipFinished, plan.Expire: plan.SkipFinished,
		}},
		"damaged":  {m: queued("D1", postfix.Deferred, damaged), want: all(plan.SkipDamaged)},
		"no inode": {m: queued("D1", postfix.Deferred, unseen), want: all(plan.SkipDamaged)},
		"maildrop": {m: queued("D1", postfix.Maildrop), want: all(plan.SkipMaildrop), opts: plan.Options{Active: true, Foreign: true}},
		"corrupt":  {m: queued("D1", postfix.Corrupt), want: all(plan.SkipQueue), opts: plan.Options{Active: true, Foreign: true}},
		"saved":    {m: queued("D1", postfix.Saved), want: all(plan.SkipQueue), opts: plan.Options{Active: true, Foreign: true}},
	}
	for name, c := range cases {
		for _, v := range []plan.Verb{plan.Hold, plan.Release, plan.Try, plan.Requeue, plan.Expire, plan.Delete} {
			d := plan.NewDraft(v, c.opts, circumstances(), nil)
			d.Take(c.m)
			e := d.Effects()
			got := ""
			if len(e.Skipped) > 0 {
				got = e.Skipped[0].Why
			}
			if got != c.want[v] || len(d.Targets())+len(e.Skipped) != 1 {
				t.Errorf("%s of %s: spared as %q with %d targets, want %q", v, name, got, len(d.Targets()), c.want[v])
			}
		}
	}
}

func all(why string) map[plan.Verb]string {
	m := make(map[plan.Verb]string)
	for _, v := range plan.Verbs() {
		m[v] = why
	}
	return m
}

// TestEffectsCount adds up a few messages by hand.
func TestEffectsCount(t *testing.T) {
	matcher, err := plan.Selector{Domains: []string{"corp.example"}}.Compile(draftNow)
	if err != nil {
		t.Fatal(err)
	}
	wide := func(m *postfix.Message) {
		m.Recipients = append(m.Recipients,
			postfix.Recipient{Address: "a@corp.example"}, postfix.Recipient{Address: "b@other.example"}, postfix.Recipient{Address: "c@other.example"})
	}
	old := func(m *postfix.Message) {
		m.Arrival, m.Expires, m.Sender = draftNow.Add(-100*time.Hour), draftNow.Add(-time.Minute), ""
	}
	d := plan.NewDraft(plan.Release, plan.Options{}, circumstances(), matcher)
	d.Take(queued("B1", postfix.Hold, wide))
	d.Take(queued("B2", postfix.Hold, old))
	d.Take(queued("B3", postfix.Hold))
	d.Take(queued("F4", postfix.Hold))
	e := d.Effects()
	if e.Bytes != 3000 || e.Recipients != 6 || e.Elsewhere != 2 {
		t.Errorf("%d bytes, %d recipients, %d elsewhere", e.Bytes, e.Recipients, e.Elsewhere)
	}
	if !e.Oldest.Equal(draftNow.Add(-100*time.Hour)) || !e.Newest.Equal(draftNow.Add(-time.Hour)) {
		t.Errorf("from %s to %s", e.Oldest, e.Newest)
	}
	if want := []plan.Tally{{"kim@shop.example", 2}, {"", 1}}; !slices.Equal(e.Senders, want) {
		t.Errorf("senders %v", e.Senders)
	}
	if want := []plan.Tally{{"corp.example", 3}, {"other.example", 1}}; !slices.Equal(e.Destinations, want) {
		t.Errorf("destinations %v", e.Destinations)
	}
	if len(e.Risks) != 1 || e.Risks[0].Kind != "expires" || e.Risks[0].Count != 1 {
		t.Errorf("risks %v", e.Risks)
	}
	if len(e.Sample) != 3 || e.Sample[0].ID != "B2" {
		t.Errorf("the sample begins with %v", e.Sample)
	}
	if len(e.Skipped) != 1 || e.Skipped[0].Count != 1 || e.Skipped[0].IDs[0] != "F4" {
		t.Errorf("skipped %v", e.Skipped)
	}
}

func TestDeleteReadsContentAndSaysWhoStillSends(t *testing.T) {
	what := circumstances()
	what.VaultOnSpool = true
	what.Digest = func(m *postfix.Message) (string, error) {
		if m.ID == "B9" {
			return "", errors.New("it is gone")
		}
		return "sha256:" + string(m.ID), nil
	}
	d := plan.NewDraft(plan.Delete, plan.Options{}, what, nil)
	fresh := func(m *postfix.Message) { m.Arrival = draftNow.Add(-time.Minute) }
	d.Take(queued("B1", postfix.Deferred, fresh))
	d.Take(queued("B9", postfix.Deferred))
	for range 3 {
		d.See(queued("C1", postfix.Active, fresh))
	}
	d.See(queued("C2", postfix.Active, fresh, func(m *postfix.Message) { m.Sender = "else@shop.example" }))
	targets, e := d.Targets(), d.Effects()
	if len(targets) != 1 || targets[0].Digest != "sha256:B1" || e.Skipped[0].Why != plan.SkipDigest {
		t.Fatalf("targets %v, skipped %v", targets, e.Skipped)
	}
	risks := map[string]int{}
	for _, r := range e.Risks {
		risks[r.Kind] = r.Count
	}
	if risks["arriving"] != 4 || risks["vault-disk"] != 1 {
		t.Errorf("risks %v", risks)
	}
}

func TestRequeueWantsItsEffectsAccepted(t *testing.T) {
	for accepted, bars := range map[bool]int{false: 1, true: 0} {
		d := plan.NewDraft(plan.Requeue, plan.Options{Effects: accepted}, circumstances(), nil)
		d.Take(queued("B1", postfix.Deferred))
		if got := d.Effects().Bars; len(got) != bars {
			t.Errorf("accepted %v: bars %v", accepted, got)
		}
	}
}

// TestRequeueNamesWhatActsOnceMore: what is set in main.cf, and nothing that is
// not.
func TestRequeueNamesWhatActsOnceMore(t *testing.T) {
	for set, want := range map[string]string{
		"":                              "lifetime",
		"always_bcc recipient_bcc_maps": "lifetime bcc:always_bcc, recipient_bcc_maps",
		"content_filter":                "lifetime content-filter:content_filter",
		"body_checks header_checks":     "lifetime checks:header_checks, body_checks",
		"virtual_alias_maps always_bcc": "lifetime bcc:always_bcc rewriting:virtual_alias_maps",
		"something that is not known":   "lifetime",
	} {
		c := circumstances()
		c.Instance.Anew = strings.Fields(set)
		d := plan.NewDraft(plan.Requeue, plan.Options{Effects: true}, c, nil)
		d.Take(queued("B1", postfix.Deferred))
		var got []string
		for _, r := range d.Effects().Risks {
			if r.Kind == "lifetime" {
				got = append(got, r.Kind)
				continue
			}
			names := ""
			for _, name := range postfix.AnewParameters() {
				if strings.Contains(r.Text, name) && (names == "" || !strings.HasSuffix(names, name)) && slices.Contains(c.Instance.Anew, name) {
					names = strings.TrimPrefix(names+", "+name, ", ")
				}
			}
			got = append(got, r.Kind+":"+names)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("with %q: %q, not %q", set, s, want)
		}
	}
}

// TestKeptPlanComesBack also tries each byte of both files being another.
func TestKeptPlanComesBack(t *testing.T) {
	d := plan.NewDraft(plan.Hold, plan.Options{}, circumstances(), nil)
	d.Take(queued("B1", postfix.Deferred))
	d.Take(queued("B2", postfix.Deferred, func(m *postfix.Message) { m.Sender = "k\xff@shop.example" }))
	p := &plan.Plan{
		Verb: plan.Hold, Instance: "mx", Made: draftNow, Expires: draftNow.Add(time.Hour), Effects: d.Effects(),
		Selector: plan.Selector{All: true}, Options: plan.Options{Review: plan.Duration(24 * time.Hour)},
	}
	if err := p.Seal(d.Targets()); err != nil {
		t.Fatal(err)
	}
	text, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var list bytes.Buffer
	if _, err := plan.EncodeTargets(&list, d.Targets()); err != nil {
		t.Fatal(err)
	}
	back, err := plan.Decode(p.ID(), text)
	if err != nil {
		t.Fatal(err)
	}
	targets, err := back.DecodeTargets(bytes.NewReader(list.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Check(targets); err != nil || targets[0].Sender != d.Targets()[0].Sender {
		t.Fatalf("targets %v: %v", targets, err)
	}
	for i := range text {
		if _, err := plan.Decode(p.ID(), altered(text, i)); err == nil {
			t.Fatalf("byte %d of the plan may be another", i)
		}
	}
	for i := range list.Bytes() {
		if _, err := back.DecodeTargets(bytes.NewReader(altered(list.Bytes(), i))); err == nil {
			t.Fatalf("byte %d of the targets may be another", i)
		}
	}
	if err := back.Check(targets[:1]); err == nil {
		t.Fatal("a target may be missing")
	}
}

func altered(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 1
	return c
}
