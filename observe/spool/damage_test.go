package spool

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/lab/forge"
	"holdfast/postfix"
)

// memFile puts bytes behind a descriptor, without a file system.
func memFile(t testing.TB, b []byte) int {
	t.Helper()
	fd, err := unix.MemfdCreate("queue file", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	fill(t, fd, b)
	return fd
}

func fill(t testing.TB, fd int, b []byte) {
	t.Helper()
	if err := unix.Ftruncate(fd, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Pwrite(fd, b, 0); err != nil || n != len(b) {
		t.Fatalf("write %d of %d bytes: %v", n, len(b), err)
	}
}

// specimen is a message that has every kind of record which the decoder knows.
func specimen() *forge.Message {
	at := time.Date(2026, 11, 20, 3, 14, 15, 926535000, time.UTC)
	return &forge.Message{
		Sender: "bounces+x=y@sender.example", FullName: "A B", Arrival: at, Size: 900, SMTPUTF8: true,
		Client:   postfix.Client{Name: "c.example", Address: "192.0.2.7", Helo: "h.example", Protocol: "ESMTPSA"},
		SASLUser: "alice", SASLMethod: "PLAIN", Filter: "smtp:[127.0.0.1]:10026", MessageID: "<1@x>",
		AddedHeaders: []string{"X-Milter: yes"},
		Recipients: []forge.Recipient{
			{Address: "one@dest.example", Done: true, Notify: 4},
			{Address: "two@dest.example", Original: "alias@dest.example", Deferred: &forge.Reason{Status: "4.4.1", Text: "connect to mx[192.0.2.1]:25: Connection timed out"}},
			{Address: "gone@dest.example", Cancelled: true},
			{Address: "late@dest.example", Place: forge.InExtracted, Bounced: &forge.Reason{Status: "5.1.1", Text: "unknown"}},
			{Address: "heap@dest.example", Place: forge.InHeap},
		},
	}
}

// readAll decodes a file and reads its content and digest, as every verb
// together would.
func readAll(t testing.TB, d *decoder, fd int, size int64, q postfix.Queue) {
	t.Helper()
	if err := d.decode(fd, size, q); err != nil {
		t.Fatalf("decode: %v", err) // only an error of the system: there is none here
	}
	start, err := d.contentStart()
	if err != nil {
		return
	}
	text, err := openContent(fd, size, start)
	if err != nil {
		t.Fatal(err)
	}
	// The limit stands for an operator's patience: damage must end the text,
	// it must not make an endless one.
	if n, _ := io.Copy(io.Discard, io.LimitReader(text, 4*size+1)); n > 4*size {
		t.Fatalf("%d bytes of content in a file of %d", n, size)
	}
	var out Detail
	text, _ = openContent(fd, size, start)
	_ = out.take(text, Want{Headers: true, Body: 1 << 16})
}

// contentReads reports whether the content can be read to its end. Headers that
// a milter added lie behind everything else; the envelope does not tell that
// they are cut, to us as little as to qmgr.
func contentReads(t *testing.T, d *decoder, fd int, size int64) bool {
	t.Helper()
	start, err := d.contentStart()
	if err != nil {
		return false
	}
	_, err = digest(fd, size, start)
	return err == nil
}

func TestQueueFileCutAtEveryByte(t *testing.T) {
	whole := forge.Encode(specimen())
	fd := memFile(t, whole)
	var d decoder
	readAll(t, &d, fd, int64(len(whole)), postfix.Deferred)
	if d.msg.Damage != "" || len(d.msg.Recipients) != 3 || d.msg.Done != 1 {
		t.Fatalf("the whole file reads as %+v", d.msg)
	}
	for n := range whole {
		fill(t, fd, whole[:n])
		for _, q := range []postfix.Queue{postfix.Deferred, postfix.Maildrop, postfix.Corrupt} {
			readAll(t, &d, fd, int64(n), q)
			if d.msg.Damage == "" && contentReads(t, &d, fd, int64(n)) {
				t.Fatalf("cut after %d of %d bytes, the file in %s still passes for whole", n, len(whole), q)
			}
		}
		// The size that fstat told and the size that is read can differ: a file
		// may be cut in between.
		readAll(t, &d, fd, int64(len(whole)), postfix.Deferred)
	}
}

func TestQueueFileWithEveryByteFlipped(t *testing.T) {
	whole := forge.Encode(specimen())
	fd := memFile(t, whole)
	var d decoder
	for i := range whole {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			mutant := bytes.Clone(whole)
			mutant[i] ^= mask
			fill(t, fd, mutant)
			readAll(t, &d, fd, int64(len(mutant)), postfix.Deferred)
			if n := len(d.msg.Recipients); n > len(mutant) {
				t.Fatalf("byte %d: %d recipients in %d bytes", i, n, len(mutant))
			}
		}
	}
}

func TestLogCutAndFlipped(t *testing.T) {
	files := forge.Lay(specimen())
	fd := memFile(t, files.Queue)
	var d decoder
	for i := range files.Defer {
		if err := d.decode(fd, int64(len(files.Queue)), postfix.Deferred); err != nil {
			t.Fatal(err)
		}
		complete := d.join(files.Defer[:i])
		if complete {
			t.Fatalf("cut after %d bytes, the log gives every recipient a reason", i)
		}
		flipped := bytes.Clone(files.Defer)
		flipped[i] ^= 0xff
		d.join(flipped)
		d.bounces(flipped)
	}
	// The last entry is still being written as long as its blank line is missing.
	if err := d.decode(fd, int64(len(files.Queue)), postfix.Deferred); err != nil {
		t.Fatal(err)
	}
	d.join(files.Defer)
	if got := d.msg.Recipients[0].Reason; got != "connect to mx[192.0.2.1]:25: Connection timed out" {
		t.Errorf("reason %q", got)
	}
}

// rec is one record in the wire form.
func rec(kind byte, payload string) string {
	n := len(payload)
	out := []byte{kind}
	for {
		b := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			out = append(out, b|0x80)
			continue
		}
		return string(append(out, b)) + payload
	}
}

// TestHostileRecords has what no Postfix writes and any process that got into
// the spool can (case A-18 of the threat list, and the bugs that Postfix fixed
// in 2026).
func TestHostileRecords(t *testing.T) {
	head := rec('C', fmt.Sprintf("%15d %15d %15d %15d %15d %15d", 6, 20, 1, 0, 6, 0)) + rec('T', "1767225600 1")
	cases := map[string]struct {
		file   string
		damage string
	}{
		"empty":                   {"", "end of file"},
		"type zero":               {head + "\x00\x00", "does not belong"},
		"length over-shift":       {head + "S\xff\xff\xff\xff\xff\xff\x01", "bad record length"},
		"length past the end":     {head + "S\xff\xff\xff\x7f", "past the end"},
		"pointer to itself":       {head + rec('p', fmt.Sprintf("%15d", len(head))), "loop"},
		"pointer loop of two":     {head + rec('p', fmt.Sprintf("%15d", len(head)+17)) + rec('p', fmt.Sprintf("%15d", len(head))), "loop"},
		"pointer past the end":    {head + rec('p', "99999999"), "outside the file"},
		"pointer below zero":      {head + rec('p', "-5"), "outside the file"},
		"pointer that is no one":  {head + rec('p', "over there"), "outside the file"},
		"two senders":             {head + rec('S', "a@b") + rec('S', "c@d"), "second sender"},
		"recipient in content":    {rec('T', "1 1") + rec('S', "") + rec('M', "") + rec('R', "a@b"), "in the content"},
		"attribute without name":  {head + rec('A', "=x"), "malformed attribute"},
		"attribute without value": {head + rec('A', "x"), "malformed attribute"},
		"impossible size":         {rec('C', "-1 0 0 0 0 0"), "impossible numbers"},
		"size of words":           {rec('C', "many few some"), "unreadable size"},
		"no end record":           {head + rec('S', "a@b") + rec('M', ""), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for _, q := range []postfix.Queue{postfix.Deferred, postfix.Maildrop} {
				var d decoder
				readAll(t, &d, memFile(t, []byte(c.file)), int64(len(c.file)), q)
				if d.msg.Damage == "" || q == postfix.Deferred && !strings.Contains(d.msg.Damage, c.damage) {
					t.Errorf("in %s: damage %q, want something of %q", q, d.msg.Damage, c.damage)
				}
			}
		})
	}
}

// TestGiantsStayCheap has a recipient of a megabyte, a million recipients, and
// a sparse file of a terabyte.
func TestGiantsStayCheap(t *testing.T) {
	envelope := rec('T', "1767225600 1") + rec('S', "a@b")
	many := strings.Repeat(rec('R', "a@b.example"), 1_000_000)
	tail := rec('M', "") + rec('N', "x") + rec('X', "") + rec('E', "")
	dir := t.TempDir()
	sparse, err := os.Create(dir + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sparse.Close() }()
	_, err = sparse.WriteString(envelope + rec('M', ""))
	if err == nil {
		err = sparse.Truncate(1 << 40)
	}
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var d decoder
	file := envelope + many + tail
	readAll(t, &d, memFile(t, []byte(file)), int64(len(file)), postfix.Maildrop)
	if len(d.msg.Recipients) != maxRecipients || d.overflow != 1_000_000-maxRecipients || d.msg.Damage != "" {
		t.Errorf("%d recipients, %d beyond, damage %q", len(d.msg.Recipients), d.overflow, d.msg.Damage)
	}
	file = envelope + rec('R', strings.Repeat("x", 1<<20)) + tail
	readAll(t, &d, memFile(t, []byte(file)), int64(len(file)), postfix.Maildrop)
	if len(d.msg.Recipients) != 1 || len(d.msg.Recipients[0].Address) != maxPayload {
		t.Errorf("a recipient of a megabyte is read as %d recipients", len(d.msg.Recipients))
	}
	if err := d.decode(int(sparse.Fd()), 1<<40, postfix.Deferred); err != nil {
		t.Fatal(err)
	}
	if d.msg.Damage == "" {
		t.Error("a terabyte of zeroes passes for a message")
	}
	runtime.ReadMemStats(&after)
	if grown := after.Sys - before.Sys; grown > 256<<20 {
		t.Errorf("reading three giants took %d MiB", grown>>20)
	}
}

func FuzzQueueFile(f *testing.F) {
	whole := forge.Encode(specimen())
	f.Add(whole, byte(postfix.Deferred))
	f.Add(whole, byte(postfix.Maildrop))
	f.Add(whole[:len(whole)/2], byte(postfix.Active))
	f.Add([]byte(rec('C', "1 2 3")+rec('p', "0")), byte(postfix.Corrupt))
	fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, q byte) {
		fill(t, fd, b)
		var d decoder
		readAll(t, &d, fd, int64(len(b)), postfix.Queue(q%8))
		again := d.msg.Clone()
		readAll(t, &d, fd, int64(len(b)), postfix.Queue(q%8))
		if len(again.Recipients) != len(d.msg.Recipients) || again.Done != d.msg.Done || again.Size != d.msg.Size {
			t.Fatal("two readings of one file differ")
		}
	})
}

func FuzzLog(f *testing.F) {
	files := forge.Lay(specimen())
	f.Add(files.Defer)
	f.Add(files.Bounce)
	f.Add([]byte("\n<a@b>: c\noffset=1\n\noffset=99999999999999999999\nreason=\n\n"))
	fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC)
	if err != nil {
		f.Fatal(err)
	}
	fill(f, fd, files.Queue)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decoder
		if err := d.decode(fd, int64(len(files.Queue)), postfix.Deferred); err != nil {
			t.Fatal(err)
		}
		d.join(b)
		d.bounces(b)
		for _, r := range d.msg.Recipients {
			if r.Reason != "" && r.Reason != "(description unavailable)" && !bytes.Contains(b, []byte(r.Reason)) {
				t.Fatalf("reason %q is not in the log", r.Reason)
			}
		}
	})
}
