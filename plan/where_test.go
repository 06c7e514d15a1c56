package plan

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/postfix"
)

func TestWhere(t *testing.T) {
	for expression, want := range map[string]bool{
		`queue == "deferred"`:                                     true,
		`queue in ["hold", "active"]`:                             false,
		`id startsWith "9F" and id endsWith "42"`:                 true,
		`sender == "News@Shop.example"`:                           true,
		`lower(sender) == "news@shop.example"`:                    true,
		`sender_domain == "shop.example"`:                         true,
		`any(recipients, .domain == "mail.example.com")`:          true,
		`any(recipients, .domain == "x.example")`:                 false,
		`any(recipients, .cause == "dns" and .status == "4.4.3")`: true,
		`any(recipients, .cause == "dns" and .host != "")`:        false,
		`all(recipients, .domain endsWith ".example")`:            false,
		`none(recipients, .cause == "tls")`:                       true,
		`one(recipients, .cause == "greylisting")`:                true,
		`count(recipients, .cause != "") == 2`:                    true,
		`recipients | count(.text contains "450") == 1`:           true,
		`any(recipients, .original == "sales@shop.example")`:      true,
		`any(recipients, .next_hop matches "^\\[.*\\]:587$")`:     true,
		`any(recipients, lower(.text) contains "greylisted")`:     true,
		`recipient_count == 3 and total == 4 and done == 1`:       true,
		`bounces == 0`: true,
		`len(domains) == 3 and "mail.example.com" in domains`: true,
		`"dns" in causes and not ("tls" in causes)`:           true,
		`len(causes) == 2`:                                             true,
		`any(texts, # matches "(?i)greylist")`:                         true,
		`any(hosts, # == "mx.partner.example")`:                        true,
		`"smtp.partner.example" in next_hops`:                          true,
		`size > bytes("10k") and size <= bytes("20000")`:               true,
		`age > duration("1h30m") && age < duration("1d")`:              true,
		`age == duration("2h")`:                                        true,
		`arrival > date("2026-03-01") and arrival < now()`:             true,
		`arrival == date("2026-03-01 10:00")`:                          true,
		`arrival == date("2026-03-01T11:00:00+01:00")`:                 true,
		`now() - arrival == age`:                                       true,
		`waiting == duration("10m")`:                                   true,
		`next_try > now()`:                                             true,
		`expires_in > duration("4d") and expires > now()`:              true,
		`client_name endsWith ".dmz.Shop.example"`:                     true,
		`client_address startsWith "10."`:                              true,
		`helo == "web1" and protocol == "ESMTP"`:                       true,
		`sasl_user == "Newsletter"`:                                    true,
		`filter == "" and redirect == "" and damage == ""`:             true,
		`force_expire or flush_requested or smtputf8`:                  false,
		`message_id == "abc.123@Shop.example"`:                         true,
		`any(headers, .name == "subject" && .value contains "für")`:    true,
		`count(headers, .name == "subject") == 2`:                      true,
		`indexOf(sender, "@") == 4 and len(trim("  x ")) == 1`:         true,
		`upper(queue) == "DEFERRED" and abs(done - total) == 3`:        true,
		`recipients[0].domain == "mail.example.com"`:                   true,
		`(sender == "" ? "null" : sender_domain) == "shop.example"`:    true,
		`if size > 1 { true } else { false }`:                          true,
		`sender matches "^[A-Z]" and not (sender matches "(?i)^NEW$")`: true,
		`domains[1:2] == ["mail.example.com"]`:                         true,
		"age > duration(\"1h\") // a comment\n and size > 1":           true,
		`true`: true,
		`"x" in ["a", "b"] or any([1, 2], # == 2)`: true,
	} {
		if got := match(t, Selector{Where: expression}, sample()); got != want {
			t.Errorf("%s is %t, want %t", expression, got, want)
		}
	}
}

func TestWhereOfNothing(t *testing.T) {
	for expression, want := range map[string]bool{
		`any(recipients, true)`: false, `all(recipients, false)`: true, `len(causes) == 0 and len(texts) == 0`: true,
		`waiting == duration("0s")`: true, `sender == ""`: true, `sender_domain == ""`: true, `queue == ""`: true,
	} {
		if got := match(t, Selector{Where: expression}, new(postfix.Message)); got != want {
			t.Errorf("%s is %t, want %t", expression, got, want)
		}
	}
}

// The message before must not show through in what is evaluated next.
func TestWhereForgets(t *testing.T) {
	c, err := Selector{Where: `any(recipients, .cause == "dns") or "dns" in causes or any(headers, true) or message_id != ""`}.Compile(noon)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		m, headers, want := sample(), sampleHeaders, true
		if i%2 == 1 {
			m, headers, want = &postfix.Message{Recipients: make([]postfix.Recipient, 2)}, func() ([]Header, error) { return nil, nil }, false
		}
		if in, err := c.Match(m, headers); err != nil || in != want {
			t.Fatalf("message %d: %t, %v; want %t", i, in, err, want)
		}
	}
}

func TestWhereMistakes(t *testing.T) {
	for expression, complaint := range map[string]string{
		`qeue == "x"`:                                      `column 1: unknown field "qeue"; did you mean "queue"?`,
		`size > 1 and clientname == "x"`:                   `column 14: unknown field "clientname"; did you mean "client_name"?`,
		`any(recipients, .domian == "x")`:                  `column 18: unknown field "domian"; did you mean "domain"?`,
		`any(headers, .nam == "x")`:                        `did you mean "name"?`,
		`recipients[0].reason == "x"`:                      `unknown field "reason"`,
		`zzzzzzzzzzzz == 1`:                                `unknown field "zzzzzzzzzzzz"`,
		"true and\n  siz > 1":                              `line 2, column 3: unknown field "siz"; did you mean "size"?`,
		`size`:                                             "a condition is true or false, but this is of type number",
		`recipients`:                                       "list of recipient",
		`sender`:                                           "of type text",
		`nil`:                                              "a condition is true or false",
		`size > "x"`:                                       "column 6: invalid operation: > (mismatched types number and text)",
		`age > 3600`:                                       "mismatched types duration and number",
		`arrival > "2026-01-01"`:                           "mismatched types time and text",
		`any(recipients, .domain)`:                         "predicate should return",
		`any(sender, true)`:                                "takes only array",
		`all(`:                                             "unexpected token",
		`sender == "x`:                                     "literal not terminated",
		`sender = "x"`:                                     "column",
		`1 % 0 == 1`:                                       "divide by zero",
		`duration("2x") < age`:                             `duration: 2 has the unknown unit "x"`,
		`duration(sender) < age`:                           "must be written out",
		`duration() < age`:                                 "takes one value",
		`size > bytes("10Q")`:                              "unknown unit",
		`arrival > date("yesterday")`:                      `"yesterday" is not a date`,
		`now(1) > arrival`:                                 "takes no value",
		`sender matches "("`:                               "no regular expression",
		`sender matches id`:                                "must be written out",
		`any(texts, "x" matches #)`:                        "must be written out",
		`sender matches "a" + "b"`:                         "must be written out",
		`let x = size; x > 1`:                              "without variables",
		`true; true`:                                       "without variables",
		`any(recipients, {let a = 1; true})`:               "without variables",
		`{"a": 1}.a == 1`:                                  "without variables",
		`1..3 == []`:                                       "ranges are not possible",
		`any(recipients, any(domains, true))`:              "cannot be used in a condition on elements",
		`any(recipients, any([1], true))`:                  "cannot contain another one",
		`any(recipients, .domain in domains)`:              "the list domains cannot be used",
		`filter(recipients, true) == []`:                   `there is no function "filter"`,
		`len(map(recipients, .domain)) > 1`:                `there is no function "map"`,
		`sort(domains) == []`:                              `there is no function "sort"`,
		`repeat(sender, 1000000) == ""`:                    `there is no function "repeat"`,
		`toJSON(recipients) == ""`:                         `there is no function "toJSON"`,
		`reduce(recipients, 1) == 1`:                       `there is no function "reduce"`,
		`get(recipients, 0) == nil`:                        `there is no function "get"`,
		`fromBase64("x") == ""`:                            `there is no function "fromBase64"`,
		`timezone("Europe/Berlin") == nil`:                 `there is no function "timezone"`,
		`system("reboot") == 1`:                            `there is no function "system"`,
		`$env["sender"] == "x"`:                            `unknown field "$env"`,
		`$env == nil`:                                      `unknown field "$env"`,
		`sender.x() == 1`:                                  "only functions can be called",
		`recipients[0].domain() == 1`:                      "only functions can be called",
		`"\x1b[2J" == sende`:                               `unknown field "sende"; did you mean "sender"?`,
		strings.Repeat("(", 2000) + "true":                 "column",
		strings.Repeat("!", 4000) + "true":                 "nodes",
		`true` + strings.Repeat(" ", maxWhere):             "longer than",
		`true or ` + strings.Repeat("1+", 1500) + `1 == 1`: "nodes",
		"true == \xff":                                     "UTF-8",
		"\x00":                                             "column",
	} {
		_, err := Selector{All: true, Where: expression}.Compile(noon)
		var e *postfix.Error
		if !errors.As(err, &e) || e.Kind != postfix.Usage || !strings.Contains(e.Object, "--where") || e.Hint == "" {
			t.Errorf("%.80s gives %v, want a usage error of --where with a hint", expression, err)
			continue
		}
		if !strings.Contains(err.Error(), complaint) {
			t.Errorf("%.80s gives %q, want %q", expression, err, complaint)
		}
		if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) || len(err.Error()) > 600 {
			t.Errorf("error is not fit for a terminal: %q", err)
		}
	}
}

// What an expression does wrong with one message only is said with its ID.
func TestWhereFailsAtRun(t *testing.T) {
	for _, expression := range []string{`recipients[9].domain == "x"`, `size % bounces == 1`} {
		c, err := Selector{Where: expression}.Compile(noon)
		if err != nil {
			t.Fatal(err)
		}
		in, err := c.Match(sample(), nil)
		var e *postfix.Error
		if in || !errors.As(err, &e) || e.Kind != postfix.Usage || !strings.Contains(err.Error(), "9FBF1140142") {
			t.Errorf("%s: %t, %v", expression, in, err)
		}
	}
}

func TestWhereDocs(t *testing.T) {
	names := make(map[string]bool)
	for _, d := range WhereFields() {
		if d.Name == "" || strings.HasSuffix(d.Name, ".") || d.Doc == "" || d.Type == "" || names[d.Name] {
			t.Errorf("field is not described well: %+v", d)
		}
		names[d.Name] = true
		expression := d.Name + " == " + d.Name
		if list, field, ok := strings.Cut(d.Name, "[]."); ok {
			expression = "any(" + list + ", ." + field + " == ." + field + ")"
		}
		if _, err := (Selector{Where: expression}).Compile(noon); err != nil {
			t.Errorf("a documented field cannot be used: %v", err)
		}
		// Examples in the documentation are expressions that work.
		if _, example, ok := strings.Cut(d.Doc, ": "); ok && strings.Contains(example, `"`) {
			if strings.HasPrefix(example, ".") {
				example = "any(recipients, " + example + ")"
			}
			if _, err := (Selector{Where: example}).Compile(noon); err != nil {
				t.Errorf("the example of %s does not work: %v", d.Name, err)
			}
		}
	}
	if fields := reflect.VisibleFields(reflect.TypeFor[Fields]()); len(names) != len(fields)+len(reflect.VisibleFields(reflect.TypeFor[RecipientFields]()))+2 {
		t.Errorf("%d fields are documented", len(names))
	}
	for _, d := range WhereFunctions() {
		if d.Doc == "" || !strings.HasPrefix(d.Type, d.Name+"(") {
			t.Errorf("function is not described well: %+v", d)
		}
	}
}

// Every field that a message has arrives in the expression under its name.
func TestWhereSeesEveryField(t *testing.T) {
	m := sample()
	m.Queue, m.Filter, m.Redirect, m.Damage = postfix.Corrupt, "scan:[127.0.0.1]:10025", "all@x.example", "cut short"
	m.ForceExpire, m.FlushRequested, m.SMTPUTF8 = true, true, true
	m.Bounces = []postfix.Failure{{Address: "a@b"}}
	var s scratch
	uses := make(map[string]bool)
	for _, d := range WhereFields() {
		uses[d.Name] = true
	}
	if err := s.fill(m, noon, uses, &lazyHeaders{read: sampleHeaders}); err != nil {
		t.Fatal(err)
	}
	v := reflect.ValueOf(s.fields)
	for _, f := range reflect.VisibleFields(v.Type()) {
		if v.FieldByIndex(f.Index).IsZero() {
			t.Errorf("field %s is not filled", f.Name)
		}
	}
	r := reflect.ValueOf(*s.fields.Recipients[1])
	for _, f := range reflect.VisibleFields(r.Type()) {
		if r.FieldByIndex(f.Index).IsZero() && f.Name != "Original" {
			t.Errorf("field %s of a recipient is not filled", f.Name)
		}
	}
}

// One Matcher is asked by several goroutines, with a message each.
func TestMatcherIsShared(t *testing.T) {
	c, err := Selector{Where: `any(recipients, .address == sender)`, Texts: []string{"/./"}}.Compile(noon)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range 500 {
				address := strconv.Itoa(g*1000 + i)
				m := &postfix.Message{Sender: address, Recipients: []postfix.Recipient{{Address: "x", Reason: "a"}, {Address: address}}}
				if in, err := c.Match(m, nil); err != nil || !in {
					t.Errorf("%s: %t, %v", address, in, err)
				}
				m.Sender = "y"
				if in, err := c.Match(m, nil); err != nil || in {
					t.Errorf("%s: %t, %v", address, in, err)
				}
			}
		})
	}
	group.Wait()
}

func FuzzWhere(f *testing.F) {
	for _, seed := range []string{
		`true`, `size > bytes("10M") and age > duration("2h")`, `any(recipients, .domain == "example.com")`, `count(recipients, .cause == "dns") > 1`,
		`sender matches "^a(b|c)*$"`, `recipients[0].text contains "x"`, `arrival < date("2026-01-01") or now() > next_try`, `domains[0:1] == ["a"]`,
		`queue in ["hold"]`, `let x = 1; x == 1`, `1..5 == []`, `{"a": 1}`, `any(recipients, any(domains, true))`, `sender ?? id == "x"`,
		`recipients?.[0]?.domain == ""`, `if done > 0 { true } else { false }`, `-size == +size`, `2 ** 63 > size`, `size % done == 0`, `any(headers, .name == "x")`,
		`not (force_expire and smtputf8)`, "# == 1", `any(texts, # startsWith "a" + "b")`, `b"x" == nil`, `((((((true))))))`, `sender | lower() | len() > 3`, "`raw` == id",
	} {
		f.Add(seed)
	}
	m := sample()
	f.Fuzz(func(t *testing.T, expression string) {
		c, err := Selector{Where: expression}.Compile(noon)
		if expression == "" {
			return
		}
		var e *postfix.Error
		if err != nil {
			if !errors.As(err, &e) || e.Kind != postfix.Usage {
				t.Fatalf("compile %q: %v is no usage error", expression, err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("error is not fit for a terminal: %q", err)
			}
			return
		}
		first, err := c.Match(m, sampleHeaders)
		if err != nil && (!errors.As(err, &e) || e.Kind != postfix.Usage && e.Kind != postfix.CannotTell) {
			t.Fatalf("match %q: %v", expression, err)
		}
		again, err2 := c.Match(m.Clone(), sampleHeaders)
		if again != first || (err == nil) != (err2 == nil) {
			t.Fatalf("%q is %t, %v first and then %t, %v", expression, first, err, again, err2)
		}
		if _, err := c.Match(new(postfix.Message), nil); err != nil && (!errors.As(err, &e) || e.Kind != postfix.Usage && e.Kind != postfix.CannotTell) {
			t.Fatalf("match %q with an empty message: %v", expression, err)
		}
	})
}

func FuzzSelectorJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"all":true}`, `{"queues":["hold"],"ids":[]}`, `{"senders":["<>","@x","*@*.y"],"domains":[".x"]}`, `{"older_than":"1d12h","newer_than":"2d"}`,
		`{"larger_than":"10M","where":"size > 1"}`, `{"texts":["/a|b/"],"headers":["Subject: x"]}`, `{"clients":["10.0.0.0/8","::1","a.b"]}`,
		`{"ids":null}`, `{"all":true,"all":false}`, `{"ALL":true}`, `{"queues":"aG9sZA=="}`, `[]`, `null`, `{"message_ids":["<a@b>"],"sasl_users":["*"],"next_hops":["[x]:25"],"causes":["dns"],"recipients":["a"]}`,
	} {
		f.Add([]byte(seed))
	}
	m := sample()
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Selector
		if err := json.Unmarshal(data, &s); err != nil {
			return
		}
		// What was accepted is kept whole, and its text is stable.
		out, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", data, err)
		}
		var back Selector
		if err := json.Unmarshal(out, &back); err != nil {
			t.Fatalf("%s was written as %s: %v", data, out, err)
		}
		if !reflect.DeepEqual(s, back) {
			t.Fatalf("%s became %s", data, out)
		}
		c, err := s.Compile(noon)
		if err != nil {
			var e *postfix.Error
			if !errors.As(err, &e) || e.Kind != postfix.Usage {
				t.Fatalf("compile %s: %v is no usage error", out, err)
			}
			return
		}
		in, err := c.Match(m, sampleHeaders)
		if err != nil {
			return
		}
		if in && s.IsZero() {
			t.Fatalf("%s is zero and selects", data)
		}
		if in && slices.ContainsFunc(kinds(), func(k kind) bool { return k.given(&s) && k.values != nil && len(k.values(&s)) == 0 }) {
			t.Fatalf("%s has a condition without values and selects", data)
		}
	})
}

// benchmark inputs: one message with one recipient, as most are.
func BenchmarkMatch(b *testing.B) {
	m := sample()
	m.Recipients = m.Recipients[:1]
	for name, s := range map[string]Selector{
		"plain":        {Queues: []postfix.Queue{postfix.Deferred}, Domains: []string{".example.com"}, Causes: []postfix.Cause{postfix.DNS}, OlderThan: Duration(time.Hour)},
		"text":         {Texts: []string{"no such thing in it"}},
		"where/size":   {Where: `size > bytes("10k") and age > duration("1h")`},
		"where/sender": {Where: `sender_domain == "shop.example" or sender == ""`},
		"where/any":    {Where: `any(recipients, .domain == "other.example" and .cause == "dns")`},
		"where/lists":  {Where: `"other.example" in domains or "tls" in causes`},
	} {
		b.Run(name, func(b *testing.B) {
			c, err := s.Compile(noon)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Match(m, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
