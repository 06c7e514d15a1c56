package plan

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"holdfast/postfix"
)

// reference says what a Selector means in the plainest way, sharing no code
// with the Matcher. Expressions are not part of it.
func reference(s Selector, m *postfix.Message, headers []Header) bool {
	if s.IsZero() {
		return false
	}
	age := noon.Sub(m.Arrival)
	return (s.Queues == nil || some(s.Queues, func(q postfix.Queue) bool { return q == m.Queue })) &&
		(s.IDs == nil || some(s.IDs, func(id postfix.QueueID) bool { return id == m.ID })) &&
		(s.Senders == nil || some(s.Senders, func(p string) bool { return refAddress(p, m.Sender) })) &&
		(s.Clients == nil || some(s.Clients, func(p string) bool { return refClient(p, m.Client) })) &&
		(s.SASLUsers == nil || some(s.SASLUsers, func(p string) bool { return m.SASLUser != "" && refGlob(p, m.SASLUser) })) &&
		(s.OlderThan == 0 || age >= time.Duration(s.OlderThan)) &&
		(s.NewerThan == 0 || age < time.Duration(s.NewerThan)) &&
		(s.LargerThan == 0 || m.Size > int64(s.LargerThan)) &&
		(s.MessageIDs == nil || some(s.MessageIDs, func(id string) bool { return strings.Trim(id, "<>") == strings.Trim(m.MessageID, "<>") })) &&
		(s.Headers == nil || some(s.Headers, func(p string) bool { return refHeader(p, headers) })) &&
		refRecipients(s, m.Recipients)
}

func refRecipients(s Selector, rcpts []postfix.Recipient) bool {
	if s.Recipients == nil && s.Domains == nil && s.NextHops == nil && s.Causes == nil && s.Texts == nil {
		return true
	}
	return some(rcpts, func(r postfix.Recipient) bool {
		return (s.Recipients == nil || some(s.Recipients, func(p string) bool {
			return refAddress(p, r.Address) || r.Original != "" && refAddress(p, r.Original)
		})) &&
			(s.Domains == nil || some(s.Domains, func(p string) bool { return refName(p, refDomain(r.Address)) })) &&
			(s.NextHops == nil || some(s.NextHops, func(p string) bool { return refHop(p, r.NextHop) })) &&
			(s.Causes == nil || some(s.Causes, func(c postfix.Cause) bool { return c == r.Cause })) &&
			(s.Texts == nil || some(s.Texts, func(p string) bool { return r.Reason != "" && refText(p, r.Reason) }))
	})
}

func some[T any](list []T, f func(T) bool) bool {
	for _, v := range list {
		if f(v) {
			return true
		}
	}
	return false
}

func refGlob(p, s string) bool {
	parts := strings.Split(strings.ToLower(p), "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ".*") + `\z`).MatchString(strings.ToLower(s))
}

func refDomain(address string) string {
	parts := strings.Split(address, "@")
	if len(parts) < 2 {
		return ""
	}
	return parts[len(parts)-1]
}

func refName(p, name string) bool {
	if strings.HasPrefix(p, ".") && !strings.Contains(p, "*") {
		return strings.HasSuffix(strings.ToLower(name), strings.ToLower(p))
	}
	return refGlob(p, name)
}

func refAddress(p, address string) bool {
	switch {
	case p == "<>":
		return address == ""
	case strings.HasPrefix(p, "@"):
		return strings.Contains(address, "@") && refName(p[1:], refDomain(address))
	}
	return refGlob(p, address)
}

func refHop(p, hop string) bool {
	if strings.ContainsAny(p, "[]:") {
		return hop != "" && refName(p, hop)
	}
	parts := regexp.MustCompile(`\[([^]]*)\]|[^:\[\]]+`).FindAllString(hop, -1)
	return some(parts, func(part string) bool { return refName(p, strings.Trim(part, "[]")) })
}

func refText(p, text string) bool {
	if strings.HasPrefix(p, "/") {
		return regexp.MustCompile("(?i)" + strings.Trim(p, "/")).MatchString(text)
	}
	return strings.Contains(strings.ToLower(text), strings.ToLower(p))
}

func refHeader(p string, headers []Header) bool {
	name, value, _ := strings.Cut(p, ":")
	return some(headers, func(h Header) bool {
		return strings.EqualFold(name, h.Name) && (value == "" || refText(strings.TrimSpace(value), h.Value))
	})
}

func refClient(p string, c postfix.Client) bool {
	if _, network, err := net.ParseCIDR(p); err == nil {
		return c.Address != "" && network.Contains(net.ParseIP(c.Address))
	}
	if ip := net.ParseIP(p); ip != nil {
		return c.Address != "" && ip.Equal(net.ParseIP(c.Address))
	}
	return c.Name != "" && refName(p, c.Name)
}

// The generators use few and similar words, so that selections and messages
// meet often.

func words(t ...string) *rapid.Generator[string] { return rapid.SampledFrom(t) }

var (
	genDomain  = words("x.example", "a.x.example", "b.a.x.example", "X.Example", "ax.example", "example", "y.example")
	genAddress = rapid.Custom(func(t *rapid.T) string {
		switch rapid.IntRange(0, 9).Draw(t, "form") {
		case 0:
			return ""
		case 1:
			return "root"
		}
		return words("kim", "Kim", "ki", "kim@lee", "a*b").Draw(t, "local") + "@" + genDomain.Draw(t, "domain")
	})
	genNamePattern = rapid.OneOf(genDomain, words(".x.example", ".example", ".X.example", "*", "*.example", "a*.x.*", "*a*", "x.*e"))
	genAddrPattern = rapid.OneOf(
		genAddress.Filter(func(s string) bool { return s != "" && !strings.Contains(s, "*") }),
		rapid.Map(genNamePattern, func(s string) string { return "@" + s }),
		words("<>", "*", "kim*", "*@*x.example", "*m@*", "k*m@*.*", "**"),
	)
	genReason = words("", "Connection timed out", "host a[1.2.3.4] said: 450 Greylisted", "451 Try later", "450 4.7.1 MÜLL", "timed")
	genHop    = words("", "x.example", "[x.example]", "[a.x.example]:587", "smtp:[x.example]:25", "relay:y.example", "[2001:db8::1]:25")
	genClient = rapid.Custom(func(t *rapid.T) postfix.Client {
		return postfix.Client{
			Name:    rapid.OneOf(genDomain, words("", "unknown")).Draw(t, "name"),
			Address: words("", "10.0.0.1", "10.0.1.1", "192.0.2.7", "2001:db8::1", "2001:db8:1::1").Draw(t, "address"),
		}
	})
	genCause = rapid.SampledFrom([]postfix.Cause{postfix.NoCause, postfix.DNS, postfix.Greylisting, postfix.RemoteDown})
)

var genMessage = rapid.Custom(func(t *rapid.T) *postfix.Message {
	return &postfix.Message{
		Queue:   rapid.SampledFrom(postfix.Queues()).Draw(t, "queue"),
		ID:      postfix.QueueID(words("AB1", "AB2", "ab1", "4dhRlh4dz5z9s2h").Draw(t, "id")),
		Arrival: noon.Add(-time.Duration(rapid.IntRange(-5, 125).Draw(t, "age")) * time.Minute),
		Size:    rapid.Int64Range(0, 3000).Draw(t, "size"),
		Sender:  genAddress.Draw(t, "sender"),
		Recipients: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) postfix.Recipient {
			return postfix.Recipient{
				Address: genAddress.Draw(t, "address"), Original: rapid.OneOf(rapid.Just(""), genAddress).Draw(t, "original"),
				NextHop: genHop.Draw(t, "hop"), Cause: genCause.Draw(t, "cause"), Reason: genReason.Draw(t, "reason"),
			}
		}), 0, 4).Draw(t, "recipients"),
		SASLUser: words("", "kim", "Kim", "lee").Draw(t, "login"), Client: genClient.Draw(t, "client"),
		MessageID: words("<a@x>", "<A@x>", "b@x", "<b@x>").Draw(t, "message id"),
	}
})

var genHeaders = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Header {
	return Header{Name: words("Subject", "SUBJECT", "X-A").Draw(t, "name"), Value: words("", "Hello there", "MÜLL", "müll am Montag").Draw(t, "value")}
}), 0, 3)

// values draws "not given" often: each kind narrows, and with all of them
// given nothing would ever match.
func values[T any](t *rapid.T, name string, g *rapid.Generator[T]) []T {
	if rapid.IntRange(0, 3).Draw(t, name+" given") > 0 {
		return nil
	}
	return rapid.SliceOfN(g, 0, 3).Draw(t, name)
}

var genSelector = rapid.Custom(func(t *rapid.T) Selector {
	s := Selector{
		All:        rapid.Bool().Draw(t, "all"),
		Queues:     values(t, "queues", rapid.SampledFrom(postfix.Queues())),
		IDs:        values(t, "ids", rapid.Map(words("AB1", "AB2", "ab1", "4dhRlh4dz5z9s2h"), func(s string) postfix.QueueID { return postfix.QueueID(s) })),
		Senders:    values(t, "senders", genAddrPattern),
		Recipients: values(t, "recipients", genAddrPattern),
		Domains:    values(t, "domains", genNamePattern),
		NextHops:   values(t, "next hops", rapid.OneOf(genNamePattern, words("[x.example]", "[*", "*:25", "smtp", "25"))),
		Causes:     values(t, "causes", genCause.Filter(func(c postfix.Cause) bool { return c != postfix.NoCause })),
		Texts:      values(t, "texts", words("timed", "GREYLISTED", "müll", "/^45[01] /", "/(timed|try)/", "4.7.1 M")),
		Clients:    values(t, "clients", rapid.OneOf(genNamePattern, words("10.0.0.1", "10.0.0.0/23", "10.0.0.0/24", "2001:db8::/48", "::/0", "unknown"))),
		SASLUsers:  values(t, "logins", words("kim", "KIM", "*", "k*")),
		MessageIDs: values(t, "message ids", words("a@x", "<b@x>", "<A@x>")),
		Headers:    values(t, "headers", words("subject: hello", "Subject:", "x-a: müll", "X-A: /m.ll$/")),
	}
	if rapid.IntRange(0, 4).Draw(t, "age given") == 0 {
		s.OlderThan = Duration(time.Duration(rapid.IntRange(1, 60).Draw(t, "older")) * time.Minute)
	}
	if rapid.IntRange(0, 4).Draw(t, "newer given") == 0 {
		s.NewerThan = Duration(time.Duration(rapid.IntRange(61, 80).Draw(t, "newer")) * time.Minute)
	}
	if rapid.IntRange(0, 4).Draw(t, "size given") == 0 {
		s.LargerThan = Size(rapid.Int64Range(1, 2500).Draw(t, "larger"))
	}
	return s
})

func judge(t *rapid.T, s Selector, m *postfix.Message, headers []Header) bool {
	c, err := s.Compile(noon)
	if err != nil {
		t.Fatalf("compile %s: %v", s, err)
	}
	in, err := c.Match(m, func() ([]Header, error) { return headers, nil })
	if err != nil {
		t.Fatalf("match %s: %v", s, err)
	}
	return in
}

func TestAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		headers := genHeaders.Draw(t, "headers")
		for range 8 {
			m := genMessage.Draw(t, "message")
			if got, want := judge(t, s, m, headers), reference(s, m, headers); got != want {
				t.Fatalf("%s selects: %t, want %t\nmessage %+v", s, got, want, m)
			}
		}
	})
}

// The reference and the Matcher could agree on never selecting anything. Each
// kind alone must be seen to select some messages and to leave out others.
func TestEachKindSelectsSome(t *testing.T) {
	in, out := make(map[string]bool), make(map[string]bool)
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		for range 20 {
			m, headers := genMessage.Draw(t, "message"), genHeaders.Draw(t, "headers")
			for _, k := range kinds() {
				one := only(s, k.flag)
				if one.IsZero() || k.values != nil && len(k.values(&one)) == 0 {
					continue
				}
				if judge(t, one, m, headers) {
					in[k.flag] = true
				} else {
					out[k.flag] = true
				}
			}
		}
	})
	for _, k := range kinds() {
		if k.flag != "where" && (!in[k.flag] || !out[k.flag] && k.flag != "all") {
			t.Errorf("--%s: selected some %t, left out some %t", k.flag, in[k.flag], out[k.flag])
		}
	}
}

// only returns the selection with no condition but one.
func only(s Selector, flag string) Selector {
	var one Selector
	for _, k := range kinds() {
		switch {
		case k.flag != flag || !k.given(&s):
		case k.values == nil:
			one.All = true
		default:
			for _, v := range k.values(&s) {
				if err := k.set(&one, v); err != nil {
					return Selector{}
				}
			}
		}
	}
	return one
}

func TestZeroSelectsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genMessage.Draw(t, "message")
		if judge(t, Selector{}, m, nil) {
			t.Fatalf("the zero selection selects %+v", m)
		}
		if !judge(t, Selector{All: true}, m, nil) {
			t.Fatalf("--all leaves out %+v", m)
		}
	})
}

func TestAllChangesNothingBesideConditions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		with, without := s, s
		with.All, without.All = true, false
		if without.IsZero() {
			return
		}
		m, headers := genMessage.Draw(t, "message"), genHeaders.Draw(t, "headers")
		if judge(t, with, m, headers) != judge(t, without, m, headers) {
			t.Fatalf("--all makes a difference to %s", without)
		}
	})
}

// Order and repetition of values mean nothing, neither to what is selected nor
// to how it is written.
func TestShuffledValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		shuffled := shuffle(s, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)))
		if s.String() != shuffled.String() {
			t.Fatalf("written as\n%s and\n%s", s, shuffled)
		}
		m, headers := genMessage.Draw(t, "message"), genHeaders.Draw(t, "headers")
		if judge(t, s, m, headers) != judge(t, shuffled, m, headers) {
			t.Fatalf("%s selects another message in another order", s)
		}
	})
}

func shuffle(s Selector, random *rand.Rand) Selector {
	s.Queues, s.IDs, s.Causes = mix(s.Queues, random), mix(s.IDs, random), mix(s.Causes, random)
	for _, list := range []*[]string{&s.Senders, &s.Recipients, &s.Domains, &s.NextHops, &s.Texts, &s.Clients, &s.SASLUsers, &s.MessageIDs, &s.Headers} {
		*list = mix(*list, random)
	}
	return s
}

// mix copies a list, perhaps with a value twice, in random order.
func mix[T any](list []T, random *rand.Rand) []T {
	if len(list) == 0 {
		return list
	}
	out := append([]T{list[random.IntN(len(list))]}, list...)
	random.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// Kinds narrow: but for those about recipients, which one recipient must meet
// together, a selection is the intersection of its kinds.
func TestKindsNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		s.Domains, s.NextHops, s.Causes, s.Texts = nil, nil, nil, nil
		m, headers := genMessage.Draw(t, "message"), genHeaders.Draw(t, "headers")
		want := !s.IsZero()
		for _, k := range kinds() {
			if k.given(&s) {
				one := only(s, k.flag)
				want = want && !one.IsZero() && judge(t, one, m, headers)
			}
		}
		if got := judge(t, s, m, headers); got != want {
			t.Fatalf("%s selects %t, its kinds one by one %t", s, got, want)
		}
	})
}

// Values of one kind add: a selection by a list is the union of the selections
// by each of its values.
func TestValuesAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		m, headers := genMessage.Draw(t, "message"), genHeaders.Draw(t, "headers")
		for _, k := range kinds() {
			if k.values == nil || k.single || !k.given(&s) {
				continue
			}
			want := false
			for _, v := range k.values(&s) {
				var one Selector
				if err := one.Set(k.flag, v); err != nil {
					t.Fatal(err)
				}
				want = want || judge(t, one, m, headers)
			}
			all := only(s, k.flag)
			if len(k.values(&s)) > 0 && judge(t, all, m, headers) != want {
				t.Fatalf("%s differs from its values one by one (%t)", all, want)
			}
		}
	})
}

func TestSelectorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Selector
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if diff := cmp.Diff(s, back); diff != "" {
			t.Fatal(diff)
		}
	})
}
