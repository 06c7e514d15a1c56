package postfix

import (
	"encoding/json"
	"testing"
	"time"
)

func TestFingerprintSame(t *testing.T) {
	m := Message{
		ID: "9FBF1140142", Inode: 1311042, Arrival: time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.FixedZone("", 3600)), Size: 2048, Sender: "news@shop.example",
	}
	f := m.Fingerprint("postfix-out")
	if !f.Same(f) || !f.Same(m.Fingerprint("postfix-out")) {
		t.Error("a message is not the same as itself")
	}
	for name, change := range map[string]func(*Fingerprint){
		"instance": func(f *Fingerprint) { f.Instance = "postfix-in" },
		"id":       func(f *Fingerprint) { f.ID = "9FBF1140143" },
		"inode":    func(f *Fingerprint) { f.Inode++ },
		"arrival":  func(f *Fingerprint) { f.Arrival = f.Arrival.Add(time.Microsecond) },
		"size":     func(f *Fingerprint) { f.Size++ },
		"sender":   func(f *Fingerprint) { f.Sender = "News@shop.example" },
	} {
		other := f
		change(&other)
		if f.Same(other) || other.Same(f) {
			t.Errorf("another %s makes no difference", name)
		}
	}
	digest, other := f, f
	digest.Digest, other.Digest = "sha256:aa", "sha256:bb"
	if !f.Same(digest) || !digest.Same(f) {
		t.Error("a digest that only one side has makes a difference")
	}
	if digest.Same(other) || !digest.Same(digest) {
		t.Error("digests are not compared")
	}
	elsewhere := f
	elsewhere.Arrival = f.Arrival.In(time.FixedZone("", -7200))
	if !f.Same(elsewhere) {
		t.Error("the time zone makes a difference")
	}
}

// The JSON of a fingerprint stands in plans and in the ledger.
func TestFingerprintJSON(t *testing.T) {
	m := Message{ID: "9FBF1140142", Inode: 1311042, Arrival: time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.FixedZone("", 3600)), Size: 2048}
	data, err := json.Marshal(m.Fingerprint("out"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"instance":"out","id":"9FBF1140142","inode":1311042,"arrival":"2026-03-01T09:00:00.123456Z","size":2048,"sender":""}`
	if string(data) != want {
		t.Errorf("JSON is\n%s, want\n%s", data, want)
	}
	var back Fingerprint
	if err := json.Unmarshal(data, &back); err != nil || !back.Same(m.Fingerprint("out")) {
		t.Errorf("read back as %+v, %v", back, err)
	}
}

func TestQueueText(t *testing.T) {
	for _, q := range Queues() {
		text, err := q.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Queue
		if err := back.UnmarshalText(text); err != nil || back != q {
			t.Errorf("%s is read back as %s, %v", q, back, err)
		}
	}
	var q Queue
	if err := q.UnmarshalText([]byte("defer")); err == nil {
		t.Error("the directory of defer logs is taken for a queue")
	}
	data, err := json.Marshal([]Queue{Hold, Deferred})
	if err != nil || string(data) != `["hold","deferred"]` {
		t.Errorf("a list of queues is %s, %v", data, err)
	}
}

func TestExpires(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	in := Instance{MaxLifetime: 5 * 24 * time.Hour, BounceLifetime: 24 * time.Hour, QueueRunDelay: time.Minute}
	if got := in.Expires(at, "kim@shop.example"); !got.Equal(at.Add(120 * time.Hour)) {
		t.Errorf("mail expires %v", got)
	}
	if got := in.Expires(at, ""); !got.Equal(at.Add(24 * time.Hour)) {
		t.Errorf("a bounce expires %v", got)
	}
	in.BounceLifetime = 10 * 24 * time.Hour
	if got := in.Expires(at, ""); !got.Equal(at.Add(120 * time.Hour)) {
		t.Errorf("a bounce outlives other mail: %v", got)
	}
	if got := in.Expires(time.Time{}, ""); !got.IsZero() {
		t.Errorf("an unknown start gives %v", got)
	}
	if got := (Instance{}).Expires(at, ""); !got.IsZero() {
		t.Errorf("an unknown lifetime gives %v", got)
	}
}
