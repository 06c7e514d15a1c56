package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// FilterConfig is an after-queue content filter: it takes mail by SMTP, marks
// it and hands it to Forward within the same transaction, so that it answers
// what Forward answered and never holds a message of its own. How it fails is
// its Traffic, as with a provider.
type FilterConfig struct {
	Name    string `json:"name"`
	Listen  string `json:"listen"`
	Forward string `json:"forward"` // where the relay takes filtered mail back
	// Header, as "Name: value", is put on top of each message.
	Header  string  `json:"header,omitempty"`
	Plain   bool    `json:"plain,omitempty"` // no XFORWARD, in either direction
	Traffic Traffic `json:"traffic,omitzero"`
	Down    bool    `json:"down,omitempty"`
}

func (c FilterConfig) check() error {
	err := errors.Join(checkName(c.Name), checkListen(c.Listen), checkListen(c.Forward), c.Traffic.check())
	if err == nil && c.Header != "" {
		if name, _, ok := strings.Cut(c.Header, ":"); !ok || name == "" || strings.ContainsAny(c.Header, "\r\n") {
			err = fmt.Errorf("header %q is not of the form \"Name: value\"", c.Header)
		}
	}
	if err != nil {
		return fmt.Errorf("content filter %q: %w", c.Name, err)
	}
	return nil
}

// filter is a running content filter.
type filter struct {
	cfg  FilterConfig
	door *door
	in   *inbox
}

func newFilter(w *World, c FilterConfig) (*filter, error) {
	f := &filter{cfg: c}
	f.in = &inbox{
		gate:  newGate(&w.clock, w.seed, "filter "+c.Name),
		clock: &w.clock, certs: w.certs, take: f.take, unanswered: func(*delivery) {},
		hosts: []string{c.Name + ".test"}, keep: true, xforward: !c.Plain,
	}
	f.door = newDoor([]string{c.Listen}, f.in.serve)
	f.in.gate.apply(c.Traffic)
	if err := f.door.set([]string{c.Listen}, c.Down); err != nil {
		return nil, fmt.Errorf("open content filter %q: %w", c.Name, err)
	}
	return f, nil
}

func (f *filter) apply(c FilterConfig) error {
	if c.Forward != f.cfg.Forward || c.Header != f.cfg.Header || c.Plain != f.cfg.Plain {
		f.door.shut() // sessions read these without a lock
		f.cfg, f.in.xforward = c, !c.Plain
	}
	f.in.gate.apply(c.Traffic)
	return f.door.set([]string{c.Listen}, c.Down)
}

func (f *filter) close()              { f.door.shut() }
func (f *filter) listening() []string { return f.door.listening() }
func (f *filter) counters() any       { return f.in.gate.counters() }
func (f *filter) reset()              { f.in.gate.reset() }

// take re-injects; the answer of the other side is ours.
func (f *filter) take(ctx context.Context, d *delivery) Reply {
	r, err := f.forward(ctx, d)
	if err != nil {
		return Reply{Code: 451, Enhanced: "4.4.1", Text: "filter cannot hand over: " + err.Error()}
	}
	return r
}

const (
	forwardDialTimeout = 10 * time.Second
	forwardTimeout     = 5 * time.Minute
)

func (f *filter) forward(ctx context.Context, d *delivery) (Reply, error) {
	var dialer net.Dialer
	dialCtx, cancel := context.WithTimeout(ctx, forwardDialTimeout)
	defer cancel()
	network, addr := "tcp", f.cfg.Forward
	if path, ok := unixPath(addr); ok {
		network, addr = "unix", path
	}
	conn, err := dialer.DialContext(dialCtx, network, addr)
	if err != nil {
		return Reply{}, err
	}
	// A shut door must not wait for a relay that hangs.
	stop := context.AfterFunc(ctx, func() { expire(conn) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(forwardTimeout)); err != nil {
		return Reply{}, errors.Join(err, conn.Close())
	}
	c := &forwarder{Conn: textproto.NewConn(conn)}
	r, err := c.send(f.cfg, d)
	return r, errors.Join(err, c.Close())
}

// forwarder is one SMTP client session of a filter.
type forwarder struct {
	*textproto.Conn
	words []string // of the EHLO reply
}

// send goes through one transaction. The first reply that is not a success is
// returned as it came.
func (c *forwarder) send(f FilterConfig, d *delivery) (Reply, error) {
	if r, err := c.answer(); err != nil || r.Code != 220 {
		return r, err
	}
	r, err := c.command("EHLO %s.test", f.Name)
	if err != nil || r.Code != 250 {
		return r, err
	}
	c.words = strings.Split(strings.ToUpper(r.Text), "\n")
	for _, line := range c.envelope(f, d) {
		if r, err := c.command("%s", line); err != nil || r.Code/100 != 2 {
			return r, err
		}
	}
	if r, err := c.command("DATA"); err != nil || r.Code != 354 {
		return r, err
	}
	w := c.DotWriter()
	if f.Header != "" {
		_, err = fmt.Fprintf(w, "%s\r\n", f.Header)
	}
	if err == nil {
		_, err = w.Write(d.content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return Reply{}, err
	}
	r, err = c.answer()
	if err == nil {
		err = c.PrintfLine("QUIT") // its answer is of no interest
	}
	return r, err
}

// envelope is the commands before DATA.
func (c *forwarder) envelope(f FilterConfig, d *delivery) []string {
	var lines []string
	if !f.Plain && c.offered("XFORWARD") {
		for _, attr := range d.xforward {
			lines = append(lines, "XFORWARD "+attr)
		}
	}
	lines = append(lines, strings.TrimSpace("MAIL FROM:<"+d.sender+"> "+c.args(d.mailArgs)))
	for _, r := range d.rcpts {
		lines = append(lines, strings.TrimSpace("RCPT TO:<"+r.addr+"> "+c.args(r.args)))
	}
	return lines
}

// args keeps the parameters that the other side knows.
func (c *forwarder) args(args string) string {
	needs := map[string]string{
		"BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN", "ORCPT": "DSN",
	}
	var kept []string
	for arg := range strings.FieldsSeq(args) {
		key, _, _ := strings.Cut(strings.ToUpper(arg), "=")
		// SIZE is left out: the header that was added makes it wrong.
		if extension, known := needs[key]; known && c.offered(extension) {
			kept = append(kept, arg)
		}
	}
	return strings.Join(kept, " ")
}

func (c *forwarder) offered(extension string) bool {
	return slices.ContainsFunc(c.words, func(w string) bool { return w == extension || strings.HasPrefix(w, extension+" ") })
}

func (c *forwarder) command(format string, args ...any) (Reply, error) {
	if err := c.PrintfLine(format, args...); err != nil {
		return Reply{}, err
	}
	return c.answer()
}

func (c *forwarder) answer() (Reply, error) {
	code, text, err := c.ReadResponse(0)
	if err != nil {
		return Reply{}, err
	}
	return Reply{Code: code, Text: text}, nil
}
