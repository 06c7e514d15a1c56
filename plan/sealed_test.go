package plan_test

import (
	"reflect"
	"testing"
	"time"

	"holdfast/plan"
	"holdfast/postfix"
)

// sample is a plan in which nothing is left at zero, so that a field that does
// not count towards the ID is found.
func sample(t *testing.T) *plan.Plan {
	t.Helper()
	p := &plan.Plan{}
	fill(t, reflect.ValueOf(p).Elem())
	return p
}

// fill sets every field, at whatever depth, to something that is not zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 11, 24, 3, 0, 0, 1000, time.UTC)))
		return
	case v.Type() == reflect.TypeFor[postfix.Queue]():
		v.Set(reflect.ValueOf(postfix.Deferred))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range v.Fields() {
			fill(t, f)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(1)
	default:
		t.Fatalf("a plan has a field of kind %s: teach this test about it", v.Kind())
	}
}

// leaves calls visit with every value that holds no other.
func leaves(v reflect.Value, path string, visit func(string, reflect.Value)) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time](), v.Type() == reflect.TypeFor[postfix.Queue]():
		visit(path, v)
	case v.Kind() == reflect.Struct:
		for f, inner := range v.Fields() {
			leaves(inner, path+"."+f.Name, visit)
		}
	case v.Kind() == reflect.Slice:
		visit(path, v)
		if v.Len() > 0 {
			leaves(v.Index(0), path+"[0]", visit)
		}
	default:
		visit(path, v)
	}
}

func TestPlanIDCoversEveryField(t *testing.T) {
	p := sample(t)
	sealed := p.ID()
	if len(sealed) != 64 || plan.Short(sealed) != sealed[:12] {
		t.Fatalf("ID %q, short %q", sealed, plan.Short(sealed))
	}
	changed := 0
	leaves(reflect.ValueOf(p).Elem(), "", func(path string, v reflect.Value) {
		before := reflect.New(v.Type()).Elem()
		before.Set(v)
		v.SetZero()
		if p.ID() == sealed {
			t.Errorf("the plan has the same ID without %s", path)
		}
		v.Set(before)
		changed++
	})
	if changed < 40 {
		t.Errorf("only %d fields were tried", changed)
	}
	if p.ID() != sealed {
		t.Error("the plan is not as it was; the test is wrong")
	}
}

func TestTargetMatchesTheMessageItWasMadeOf(t *testing.T) {
	m := &postfix.Message{
		Queue: postfix.Deferred, ID: "4F2A01B2C4", Inode: 42, Size: 512, Sender: "caf\xe9@\xff.example",
		Arrival:    time.Date(2026, 11, 24, 3, 0, 0, 123456000, time.UTC),
		Recipients: []postfix.Recipient{{Address: "a@b.example", NextHop: "b.example"}, {Address: "c@d.example"}},
	}
	target := plan.TargetOf("postfix", m)
	if !target.Matches(m.Fingerprint("postfix")) {
		t.Errorf("%+v does not match its own message", target)
	}
	if target.Recipients != 2 || target.NextHop != "b.example" || target.Queue != postfix.Deferred {
		t.Errorf("target %+v", target)
	}
	for name, other := range map[string]func(*postfix.Message){
		"inode": func(m *postfix.Message) { m.Inode++ }, "id": func(m *postfix.Message) { m.ID = "4F2A01B2C5" },
		"size": func(m *postfix.Message) { m.Size++ }, "sender": func(m *postfix.Message) { m.Sender = "x" },
		"arrival": func(m *postfix.Message) { m.Arrival = m.Arrival.Add(time.Microsecond) },
	} {
		changed := m.Clone()
		other(changed)
		if target.Matches(changed.Fingerprint("postfix")) {
			t.Errorf("a message with another %s is taken for the same", name)
		}
	}
}

func TestWhoNamesThePersonBehindRoot(t *testing.T) {
	for _, c := range []struct {
		who  plan.Who
		want string
	}{
		{plan.Who{User: "root"}, "root"},
		{plan.Who{User: "root", Login: "ada"}, "ada"},
		{plan.Who{User: "root", Login: "ada", SudoUser: "bob"}, "bob"},
		{plan.Who{User: "root", Login: "ada", SudoUser: "root"}, "ada"},
		{plan.Who{User: "root", Login: "root"}, "root"},
		{plan.Who{User: "mail"}, "mail"},
	} {
		if got := c.who.Name(); got != c.want {
			t.Errorf("%+v is %q, want %q", c.who, got, c.want)
		}
	}
}
