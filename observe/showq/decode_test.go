package showq

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"holdfast/lab/forge"
	"holdfast/postfix"
)

// collect decodes a whole stream.
func collect(r io.Reader, limits Limits) ([]*postfix.Message, Listing, error) {
	var got []*postfix.Message
	list, err := Decode(r, limits, func(m *postfix.Message) error {
		got = append(got, m.Clone())
		return nil
	})
	return got, list, err
}

// as is what of the messages a release can tell.
func as(r release, messages []*postfix.Message) []*postfix.Message {
	var out []*postfix.Message
	for _, m := range messages {
		c := m.Clone()
		if !r.expires {
			c.ForceExpire = false
		}
		if !r.classes {
			for i := range c.Recipients {
				c.Recipients[i].Original = ""
			}
			// Without log_class a bounced recipient looks like any other.
			for _, f := range c.Bounces {
				c.Recipients = append(c.Recipients, postfix.Recipient{Address: f.Address, Reason: f.Reason})
			}
			c.Bounces = nil
		}
		out = append(out, c)
	}
	return out
}

func TestDecodeEveryRelease(t *testing.T) {
	for _, r := range releases() {
		t.Run(r.name, func(t *testing.T) {
			text := construct(r, sample())
			for name, in := range map[string]io.Reader{
				"whole": bytes.NewReader(text), "byte by byte": iotest.OneByteReader(bytes.NewReader(text)),
				"data with error": iotest.DataErrReader(bytes.NewReader(text)),
			} {
				got, list, err := collect(in, Limits{})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if diff := cmp.Diff(as(r, sample()), got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s: decoded messages differ (-want +got):\n%s", name, diff)
				}
				if list != (Listing{Greeted: r.greets, Messages: len(sample())}) {
					t.Errorf("%s: listing is %+v", name, list)
				}
			}
		})
	}
}

func TestDecodeEmptyQueue(t *testing.T) {
	for _, r := range releases() {
		got, list, err := collect(bytes.NewReader(construct(r, nil)), Limits{})
		if err != nil || len(got) != 0 || list.Greeted != r.greets {
			t.Errorf("%s: %d messages, %+v, %v", r.name, len(got), list, err)
		}
	}
}

// jsonMessage is what postqueue -j says of a message:
// another decoder's reading of the same stream.
type jsonMessage struct {
	Queue   string `json:"queue_name"`
	ID      string `json:"queue_id"`
	Arrival int64  `json:"arrival_time"`
	Size    int64  `json:"message_size"`
	Expire  bool   `json:"forced_expire"`
	Sender  string `json:"sender"`
	Rcpts   []struct {
		Address string `json:"address"`
		Reason  string `json:"delay_reason"`
	} `json:"recipients"`
}

// linesOfPostqueue and lineOf put both sides into one comparable form.
func linesOfPostqueue(t *testing.T, text []byte) []string {
	t.Helper()
	var out []string
	dec := json.NewDecoder(bytes.NewReader(text))
	for {
		var m jsonMessage
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s %s %d %d %v <%s>", m.Queue, m.ID, m.Arrival, m.Size, m.Expire, internalForm([]byte(m.Sender)))
		for _, r := range m.Rcpts {
			line += fmt.Sprintf("\n  <%s> %s", internalForm([]byte(r.Address)), r.Reason)
		}
		out = append(out, line)
	}
}

func lineOf(m *postfix.Message) string {
	line := fmt.Sprintf("%s %s %d %d %v <%s>", m.Queue, m.ID, m.Arrival.Unix(), m.Size, m.ForceExpire, m.Sender)
	for _, r := range m.Recipients {
		line += fmt.Sprintf("\n  <%s> %s", r.Address, r.Reason)
	}
	return line
}

func TestDecodeRecordedAgreesWithPostqueue(t *testing.T) {
	text := recorded(t)
	golden, err := os.ReadFile("testdata/recorded-3.7.11.json")
	if err != nil {
		t.Fatal(err)
	}
	got, list, err := collect(bytes.NewReader(text), Limits{})
	if err != nil || !list.Greeted {
		t.Fatalf("decode the recorded stream: %+v, %v", list, err)
	}
	var lines []string
	for _, m := range got {
		lines = append(lines, lineOf(m))
	}
	if diff := cmp.Diff(linesOfPostqueue(t, golden), lines); diff != "" {
		t.Errorf("differs from postqueue -j (-postqueue +decoded):\n%s", diff)
	}
	if len(got) < 12 {
		t.Errorf("only %d messages in the recording", len(got))
	}
}

func recorded(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/recorded-3.7.11.stream")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func streams(t testing.TB) map[string][]byte {
	all := map[string][]byte{"recorded 3.7.11": recorded(t)}
	for _, r := range releases() {
		all["constructed "+r.name] = construct(r, sample())
	}
	return all
}

// TestCutAnywhereIsTruncated is the promise that a listing which broke off
// never looks like a small queue.
func TestCutAnywhereIsTruncated(t *testing.T) {
	for name, text := range streams(t) {
		whole, _, err := collect(bytes.NewReader(text), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReaderSize(nil, bufferSize) // a new buffer each time would be all the work
		for n := range text {
			in.Reset(bytes.NewReader(text[:n]))
			got, _, err := collect(in, Limits{})
			if !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s: cut at byte %d of %d: error %v, want ErrTruncated", name, n, len(text), err)
			}
			for i := range got {
				if !reflect.DeepEqual(whole[i], got[i]) {
					t.Fatalf("%s: cut at byte %d: message %d is\n%+v, want\n%+v", name, n, i, got[i], whole[i])
				}
			}
		}
	}
}

// TestFlippedByteNeverShortensTheListing flips every byte in three ways. A
// flip inside a text cannot be noticed; one that changes how many messages
// there are must be.
func TestFlippedByteNeverShortensTheListing(t *testing.T) {
	for name, text := range streams(t) {
		whole, _, err := collect(bytes.NewReader(text), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		in, damaged := bufio.NewReaderSize(nil, bufferSize), make([]byte, len(text))
		for n := range text {
			for _, flip := range []byte{text[n], 0x01, 0x20, 0xff} { // the first makes a NUL
				if flip == 0 {
					continue
				}
				copy(damaged, text)
				damaged[n] ^= flip
				in.Reset(bytes.NewReader(damaged))
				got, _, err := collect(in, Limits{})
				var syntax *SyntaxError
				switch {
				case err == nil && len(got) != len(whole):
					t.Errorf("%s: byte %d flipped by %#x: %d messages instead of %d and no error", name, n, flip, len(got), len(whole))
				case errors.As(err, &syntax) && (syntax.Offset < 0 || syntax.Offset > int64(len(text))):
					t.Errorf("%s: byte %d flipped: error at byte %d of %d", name, n, syntax.Offset, len(text))
				case err != nil && syntax == nil && !errors.Is(err, ErrTruncated):
					t.Errorf("%s: byte %d flipped: unexpected error %v", name, n, err)
				}
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	head := "queue_name\x00deferred\x00queue_id\x00ABCDEF1\x00time\x001\x00size\x001\x00sender\x00a\x00"
	for _, c := range []struct{ name, text, want string }{
		{"other service", "protocol\x00queue_flush_protocol\x00\x00\x00", `byte 0 of the listing: the server speaks "queue_flush_protocol"`},
		{"no name", "queue name\x00deferred\x00\x00\x00", `no attribute name: "queue name"`},
		{"html", "HTTP/1.1 400 Bad Request\r\n\r\n\x00", "no attribute name"},
		{"unknown queue", "queue_name\x00elsewhere\x00", `unknown queue "elsewhere"`},
		{"path for an ID", "queue_id\x00../../etc/passwd\x00", "is no queue ID"},
		{"empty ID", "queue_id\x00\x00", "is no queue ID"},
		{"negative size", "size\x00-1\x00", `size has the value "-1"`},
		{"endless number", "size\x00" + strings.Repeat("1", 500) + "\x00", "size has the value"},
		{"time of another age", "time\x009999999999999\x00", "time has the value"},
		{"flag", "forced_expire\x002\x00", `forced_expire has the value "2"`},
		{"nothing needed", "later\x001\x00\x00\x00", "a message without queue_name"},
		{"no sender", strings.TrimSuffix(head, "sender\x00a\x00") + "\x00\x00", "a message without sender"},
		{"two senders", head + "sender\x00b\x00", "a second sender"},
		{"lost mark", head + head, "a second queue_name"},
		{"reason of nobody", head + "reason\x00x\x00", "reason of no recipient"},
		{"recipient without reason", head + "recipient\x00x\x00\x00\x00", "a recipient without address or reason"},
		{"original without recipient", head + "original_recipient\x00x\x00reason\x00\x00\x00\x00", "a recipient without address or reason"},
		{"two reasons", head + "recipient\x00x\x00reason\x00y\x00reason\x00z\x00", "a second reason"},
		{"data behind the end", head + "\x00\x00x", "more data behind the end mark"},
		{"second listing", "\x00\x00", "byte 1 of the listing: more data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := collect(strings.NewReader(c.text), Limits{})
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want a syntax error with %q", err, c.want)
			}
		})
	}
}

func TestUnknownAttributesAreSkipped(t *testing.T) {
	text := "protocol\x00mail_queue_list_protocol\x00version\x009\x00\x00" +
		"colour\x00blue\x00queue_name\x00deferred\x00queue_id\x00ABCDEF1\x00next_try\x0012\x00time\x001\x00size\x001\x00sender\x00a\x00" +
		"recipient\x00b\x00urgency\x00\x00reason\x00why\x00recipient\x00c\x00reason\x00\x00reason_code\x004.0.0\x00\x00\x00"
	got, list, err := collect(strings.NewReader(text), Limits{})
	if err != nil || !list.Greeted || len(got) != 1 {
		t.Fatalf("%d messages, %+v, %v", len(got), list, err)
	}
	if diff := cmp.Diff([]postfix.Recipient{{Address: "b", Reason: "why"}, {Address: "c"}}, got[0].Recipients); diff != "" {
		t.Error(diff)
	}
}

func TestLimits(t *testing.T) {
	m := sample()[2]
	for range 50 {
		m.Recipients = append(m.Recipients, postfix.Recipient{Address: "x@y.example"})
	}
	m.Recipients[0].Reason = strings.Repeat("0123456789", 30)
	text := construct(releases()[3], []*postfix.Message{m, sample()[3]})
	got, list, err := collect(bytes.NewReader(text), Limits{Text: 1, Recipients: 3})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || len(got[0].Recipients) != 3 || list.Left != 50 || list.Cut != 1 {
		t.Errorf("%d messages, %d recipients, %+v", len(got), len(got[0].Recipients), list)
	}
	if reason := got[0].Recipients[0].Reason; reason != m.Recipients[0].Reason[:256] {
		t.Errorf("reason is %q, want 256 bytes of it", reason)
	}
	_, list, err = collect(bytes.NewReader(text), Limits{Messages: 1})
	if !errors.Is(err, ErrTruncated) || list.Messages != 1 {
		t.Errorf("%+v, %v; want one message and ErrTruncated", list, err)
	}
}

// endless gives the same bytes for ever, up to a number of them.
type endless struct {
	text string
	left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && e.left > 0 {
		k := copy(p[n:], e.text)
		n, e.left = n+k, e.left-k
	}
	return n, nil
}

// TestMemoryDoesNotFollowTheStream gives the decoder 16 MiB of one value, of
// one name, of one message's recipients and of unknown attributes.
func TestMemoryDoesNotFollowTheStream(t *testing.T) {
	const size, most = 16 << 20, 1 << 20
	head := "queue_name\x00deferred\x00queue_id\x00ABCDEF1\x00time\x001\x00size\x001\x00"
	for name, in := range map[string]io.Reader{
		"value":      io.MultiReader(strings.NewReader(head+"sender\x00"), &endless{strings.Repeat("x", 4096), size}),
		"name":       &endless{strings.Repeat("x", 4096), size},
		"recipients": io.MultiReader(strings.NewReader(head+"sender\x00a\x00"), &endless{"recipient\x00b\x00reason\x00\x00", size}),
		"unknown":    &endless{"colour\x00blue\x00", size},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Decode(in, Limits{Recipients: 1000}, func(*postfix.Message) error { return nil })
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		// Strings of recipients that are dropped at once are garbage, not growth.
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); name != "recipients" && after.TotalAlloc-before.TotalAlloc > most || grown > 8*most {
			t.Errorf("%s: allocated %d bytes, grew by %d for a stream of %d", name, after.TotalAlloc-before.TotalAlloc, grown, size)
		}
	}
}

func TestVisitEndsTheReading(t *testing.T) {
	stop := errors.New("enough")
	list, err := Decode(bytes.NewReader(construct(releases()[2], sample())), Limits{}, func(*postfix.Message) error { return stop })
	if !errors.Is(err, stop) || list.Messages != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestReadErrorIsTold(t *testing.T) {
	broken := errors.New("wire cut")
	text := construct(releases()[2], sample())
	for _, n := range []int{0, 4, len(text) / 2, len(text)} {
		_, _, err := collect(io.MultiReader(bytes.NewReader(text[:n]), iotest.ErrReader(broken)), Limits{})
		if !errors.Is(err, ErrTruncated) || !errors.Is(err, broken) {
			t.Errorf("read error at byte %d: %v", n, err)
		}
	}
}

func TestAddressesAreUnquoted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.StringMatching(`[ -~äłß]{1,20}`).Draw(t, "local")
		address := local + "@" + rapid.StringMatching(`[a-z]{1,8}\.example`).Draw(t, "domain")
		if got := internalForm([]byte(forge.Quote(address))); got != address {
			t.Fatalf("%q was printed as %q and read as %q", address, forge.Quote(address), got)
		}
	})
	for in, want := range map[string]string{
		`"never closed@x`: `"never closed@x`, `"a"b@x`: `"a"b@x`, `"`: `"`, `"\`: `"\`, `""@x`: `@x`, `"only local"`: `only local`,
	} {
		if got := internalForm([]byte(in)); got != want {
			t.Errorf("internalForm(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range streams(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, list, err := collect(bytes.NewReader(text), Limits{Text: 256, Recipients: 16})
		var syntax *SyntaxError
		if err != nil && !errors.Is(err, ErrTruncated) && !errors.As(err, &syntax) {
			t.Fatalf("error of no kind: %v", err)
		}
		if list.Messages != len(got) {
			t.Fatalf("%d messages counted, %d passed on", list.Messages, len(got))
		}
		for _, m := range got {
			if !postfix.ValidQueueID(string(m.ID)) || m.Queue == postfix.NoQueue || m.Size < 0 || len(m.Recipients) > 16 || len(m.Sender) > 256 {
				t.Fatalf("impossible message %+v", m)
			}
		}
		again, _, errAgain := collect(iotest.OneByteReader(bytes.NewReader(text)), Limits{Text: 256, Recipients: 16})
		if diff := cmp.Diff(got, again); diff != "" || (err == nil) != (errAgain == nil) {
			t.Fatalf("byte by byte the same stream reads otherwise: %v, %v\n%s", err, errAgain, diff)
		}
		if err == nil {
			if _, _, err := collect(bytes.NewReader(text[:len(text)-1]), Limits{}); !errors.Is(err, ErrTruncated) {
				t.Fatalf("without its last byte: %v", err)
			}
		}
	})
}
