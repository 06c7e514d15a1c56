package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"
	"golang.org/x/net/idna"
	"golang.org/x/sys/unix"

	"holdfast/observe"
)

// How name servers are asked. The C library waits five seconds and asks twice,
// which nobody has who waits for a triage; a server that needs more than three
// seconds for an answer from its cache slows all mail down already.
const (
	questionPatience = 3 * time.Second
	questionRepeat   = time.Second // a lost packet is no dead server
	// ednsSize is what fits through every network unfragmented (DNS flag day 2020).
	ednsSize = 1232
	// maxStrangers is how many packets that are no answer to the question may
	// come before it is given up: a flood of them must not keep anybody busy.
	maxStrangers = 100
	// maxAliases is how far a chain of CNAME records is followed.
	maxAliases = 16
)

// resolver asks one name server.
type resolver struct {
	address string // host part, as resolv.conf names it
	port    string
	overTCP bool
}

// reply is what became of one question.
type reply struct {
	observe.Answer
	// records are those of the type that was asked for, at the end of the
	// chain of aliases.
	records []dns.RR
	// cut says that the look ended before the server's time was up: then
	// nothing is known about the server.
	cut bool
}

// The outcomes of a question, as observe.Answer lists them.
const (
	outcomeAnswer      = "answer"
	outcomeNoData      = "nodata"
	outcomeNXDomain    = "nxdomain"
	outcomeServfail    = "servfail"
	outcomeRefused     = "refused"
	outcomeTimeout     = "timeout"
	outcomeUnreachable = "unreachable"
	outcomeGarbage     = "garbage"
	outcomeFailed      = "failed"
)

// wireName returns a domain as it is asked for, in ASCII and with the dot of
// the root, and false where the domain cannot be asked for at all: recipients'
// domains are a stranger's choice.
func wireName(domain string) (string, bool) {
	domain = strings.TrimSuffix(domain, ".")
	for i := range len(domain) {
		if domain[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(domain)
			if err != nil || !utf8.ValidString(domain) {
				return "", false
			}
			domain = ascii
			break
		}
	}
	// A backslash would be an escape, and the others are in no host name.
	if domain == "" || strings.ContainsAny(domain, "\\[]:@ \t\r\n\x00\"") {
		return "", false
	}
	if _, ok := dns.IsDomainName(domain); !ok {
		return "", false
	}
	return dns.Fqdn(domain), true
}

// ask asks one question and always answers within questionPatience, or when
// the context ends. name is as wireName returns it.
func (r resolver) ask(ctx context.Context, name string, qtype uint16) reply {
	began := time.Now()
	own, cancel := context.WithTimeout(ctx, questionPatience)
	defer cancel()
	query := new(dns.Msg).SetQuestion(name, qtype)
	query.SetEdns0(ednsSize, false)
	msg, err := r.exchange(own, query)
	if err == nil && (msg.Rcode == dns.RcodeFormatError || msg.Rcode == dns.RcodeNotImplemented || msg.Rcode == dns.RcodeBadVers) {
		// An old server or a firewall that knows nothing of EDNS (RFC 6891, 7);
		// libc would not have used it unless told to.
		query = new(dns.Msg).SetQuestion(name, qtype)
		msg, err = r.exchange(own, query)
	}
	out := reply{Answer: observe.Answer{Latency: time.Since(began)}}
	if err != nil {
		out.Outcome, out.Text = outcomeOfError(err)
		out.cut = out.Outcome == outcomeTimeout && out.Latency < questionPatience // the context's end, then
		return out
	}
	out.judge(msg, name, qtype)
	return out
}

// errGarbage is what comes where an answer should.
var errGarbage = errors.New("what came is no answer to the question")

func outcomeOfError(err error) (outcome, text string) {
	switch {
	case errors.Is(err, errGarbage):
		return outcomeGarbage, err.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return outcomeTimeout, "no answer"
	}
	for _, errno := range []unix.Errno{
		unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EACCES, unix.EPERM, unix.EINVAL,
		unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT, unix.ECONNRESET, unix.EHOSTDOWN,
	} {
		if errors.Is(err, errno) {
			return outcomeUnreachable, errno.Error()
		}
	}
	return outcomeFailed, err.Error()
}

// exchange sends the query by UDP, and by TCP where the answer is cut off.
func (r resolver) exchange(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	if !r.overTCP {
		msg, err := r.overUDP(ctx, query)
		if err != nil || !msg.Truncated {
			return msg, err
		}
	}
	msg, err := r.dialTCP(ctx, query)
	if err != nil && !r.overTCP {
		return nil, fmt.Errorf("the answer by UDP is truncated, and by TCP: %w", err)
	}
	return msg, err
}

// dial opens a socket that the end of the context closes.
func (r resolver) dial(ctx context.Context, network string) (net.Conn, func(), error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, net.JoinHostPort(r.address, r.port))
	if err != nil {
		return nil, nil, err
	}
	// The deadline makes reads fail as time-outs; a cancelled look does so at once.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

func (r resolver) overUDP(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	packet, err := query.Pack()
	if err != nil {
		return nil, fmt.Errorf("word the question: %w", err)
	}
	conn, closeConn, err := r.dial(ctx, "udp")
	if err != nil {
		return nil, err
	}
	defer closeConn()
	strangers, buffer := 0, make([]byte, 4096)
	for {
		if _, err := conn.Write(packet); err != nil {
			return nil, err
		}
		err := setReadDeadline(ctx, conn, questionRepeat)
		if err == nil {
			var msg *dns.Msg
			if msg, err = readUDP(conn, buffer, query, &strangers); err == nil {
				return msg, nil
			}
		}
		switch over := ended(ctx); {
		case !over && errors.Is(err, os.ErrDeadlineExceeded):
			continue // it is sent again
		case over && strangers > 0:
			return nil, fmt.Errorf("%w: %d packets with a wrong ID or another question", errGarbage, strangers)
		}
		return nil, err
	}
}

// ended says that the context is over by the clock. On a busy host its own
// timer is late, and whoever goes by that alone asks hundreds of times more.
func ended(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(end)
}

// setReadDeadline sets a deadline that is never later than that of the context,
// and not at all where the context has ended: AfterFunc has set one by then.
func setReadDeadline(ctx context.Context, conn net.Conn, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at := time.Now().Add(d)
	if end, ok := ctx.Deadline(); ok && end.Before(at) {
		at = end
	}
	if err := conn.SetReadDeadline(at); err != nil {
		return err
	}
	return ctx.Err() // it may have ended between the look at it and the setting
}

// readUDP reads until a packet answers the question. The socket is connected:
// all packets come from the server, or from who can write its address.
func readUDP(conn net.Conn, buffer []byte, query *dns.Msg, strangers *int) (*dns.Msg, error) {
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		if n >= 2 && binary.BigEndian.Uint16(buffer) == query.Id {
			msg, err := decodeAnswer(buffer[:n], query)
			if !errors.Is(err, errStranger) {
				return msg, err
			}
		}
		if *strangers++; *strangers >= maxStrangers {
			return nil, fmt.Errorf("%w: a flood of packets with a wrong ID or another question", errGarbage)
		}
	}
}

// errStranger is a message that answers another question.
var errStranger = errors.New("it answers another question")

func decodeAnswer(packet []byte, query *dns.Msg) (*dns.Msg, error) {
	msg := new(dns.Msg)
	if err := msg.Unpack(packet); err != nil {
		// A truncated packet may end anywhere; its header says all that counts.
		if msg.Response && msg.Truncated && msg.Id == query.Id {
			return msg, nil
		}
		return nil, fmt.Errorf("%w: %w", errGarbage, err)
	}
	if promised := binary.BigEndian.Uint16(packet[6:]); int(promised) != len(msg.Answer) && !msg.Truncated {
		return nil, fmt.Errorf("%w: it promises %d records and holds %d", errGarbage, promised, len(msg.Answer))
	}
	// Some servers leave the question out of an error (RFC 2181 is silent).
	sameQuestion := len(msg.Question) == 1 && msg.Question[0].Qtype == query.Question[0].Qtype &&
		strings.EqualFold(msg.Question[0].Name, query.Question[0].Name)
	noQuestion := len(msg.Question) == 0 && (msg.Rcode != dns.RcodeSuccess || msg.Truncated)
	if !msg.Response || msg.Id != query.Id || !sameQuestion && !noQuestion {
		return nil, errStranger
	}
	return msg, nil
}

func (r resolver) dialTCP(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	packet, err := query.Pack()
	if err != nil {
		return nil, fmt.Errorf("word the question: %w", err)
	}
	conn, closeConn, err := r.dial(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	defer closeConn()
	if err := setReadDeadline(ctx, conn, questionPatience); err != nil {
		return nil, err
	}
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...) //nolint:gosec // a question is far below 64 kB
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, closedEarly(err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, closedEarly(err)
	}
	msg, err := decodeAnswer(answer, query)
	if errors.Is(err, errStranger) {
		return nil, fmt.Errorf("%w: %w", errGarbage, err)
	}
	return msg, err
}

func closedEarly(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server closed the connection without an answer")
	}
	return err
}

// judge reads the outcome out of an answer.
func (r *reply) judge(msg *dns.Msg, name string, qtype uint16) {
	switch msg.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		r.Outcome = outcomeNXDomain
		return
	case dns.RcodeServerFailure:
		r.Outcome, r.Text = outcomeServfail, "server failure"
		return
	case dns.RcodeRefused:
		r.Outcome, r.Text = outcomeRefused, "query refused"
		return
	default:
		r.Outcome, r.Text = outcomeFailed, "response code "+rcodeText(msg.Rcode)
		return
	}
	aliases := make(map[string]string)
	for _, rr := range msg.Answer {
		if alias, ok := rr.(*dns.CNAME); ok {
			aliases[dns.CanonicalName(alias.Hdr.Name)] = dns.CanonicalName(alias.Target)
		}
	}
	owner := dns.CanonicalName(name)
	for range maxAliases {
		for _, rr := range msg.Answer {
			if rr.Header().Rrtype == qtype && dns.CanonicalName(rr.Header().Name) == owner {
				r.records = append(r.records, rr)
			}
		}
		next, more := aliases[owner]
		if len(r.records) > 0 || !more {
			r.Outcome, r.Records = outcomeAnswer, len(r.records)
			if len(r.records) == 0 {
				r.Outcome = outcomeNoData
			}
			return
		}
		owner = next
	}
	r.Outcome, r.Text = outcomeFailed, fmt.Sprintf("a chain or loop of more than %d CNAME records", maxAliases)
}

func rcodeText(rcode int) string {
	if text, ok := dns.RcodeToString[rcode]; ok {
		return text
	}
	return fmt.Sprint(rcode)
}
