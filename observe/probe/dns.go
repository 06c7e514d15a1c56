package probe

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"

	"github.com/miekg/dns"

	"holdfast/observe"
	"holdfast/postfix"
)

// hostResolvConf is the C library's list of name servers.
const hostResolvConf = "/etc/resolv.conf"

// maxQuestions bounds what one look asks of each name server.
const maxQuestions = 32

// dnsProbe asks name servers.
type dnsProbe struct {
	hostPath string // resolv.conf outside of the jail
	port     string
}

// askDNS asks every name server that Postfix's smtp asks, each by itself: a
// lookup through all of them, as programs make it, hides which one is ill.
func askDNS(ctx context.Context, in postfix.Instance, s observe.Settings, q observe.Questions) (observe.DNS, []observe.Gap) {
	return dnsProbe{hostResolvConf, "53"}.look(ctx, in, s, q)
}

// look reads the lists of name servers and asks each server once, also where
// it stands in both.
func (p dnsProbe) look(ctx context.Context, in postfix.Instance, s observe.Settings, q observe.Questions) (observe.DNS, []observe.Gap) {
	found, conf, host, gaps := p.lists(in, s)
	if conf == nil {
		return found, gaps
	}
	questions, skipped := wireQuestions(q.Names)
	gaps = append(gaps, skipped...)
	answers := make(map[string]*asked)
	var wg sync.WaitGroup
	for _, c := range []*resolvConf{conf, host} {
		if c == nil {
			continue
		}
		for _, address := range c.servers {
			if answers[address] == nil {
				a := &asked{resolver: resolver{address, p.port, c.overTCP}}
				answers[address] = a
				wg.Go(func() { a.askAll(ctx, questions) })
			}
		}
	}
	wg.Wait()
	collect := func(c *resolvConf) []observe.Resolver {
		var list []observe.Resolver
		for _, address := range c.servers {
			list = append(list, observe.Resolver{Address: address, Answers: slices.Clone(answers[address].answers)})
		}
		return list
	}
	found.Known, found.Servers = true, collect(conf)
	if host != nil {
		found.HostServers = collect(host)
	}
	for _, a := range answers {
		if a.cut > 0 {
			gaps = append(gaps, observe.Gap{
				Source: "dns", Object: a.address, Text: "the look ended before the name server's time to answer was up", Count: a.cut,
				Hint: "look again with a longer --timeout",
			})
		}
	}
	return found, gaps
}

// lists finds the file that counts for smtp(8). host is nil where that file
// names the same servers, or is the only one.
func (p dnsProbe) lists(in postfix.Instance, s observe.Settings) (found observe.DNS, conf, host *resolvConf, gaps []observe.Gap) {
	found = observe.DNS{Path: p.hostPath, HostPath: p.hostPath, Chrooted: s.SMTPChroot}
	if s.SMTPChroot {
		// The resolver of a jailed process sees this copy, which the package's
		// start script makes and nobody refreshes when the real one changes.
		found.Path = filepath.Join(in.QueueDir, "etc/resolv.conf")
	}
	read := func(path string) *resolvConf {
		c, err := readResolvConf(path)
		if err != nil {
			gaps = append(gaps, observe.Gap{Source: "dns", Object: path, Text: err.Error(), Hint: "run as root, or as a user who may read " + path})
			return nil
		}
		for _, word := range c.ignored {
			gaps = append(gaps, observe.Gap{
				Source: "dns", Object: path, Text: fmt.Sprintf("the name server %q is no address, so nobody asks it", word),
				Hint: "correct the line in " + path,
			})
		}
		return &c
	}
	if conf = read(found.Path); conf == nil {
		return found, nil, nil, gaps
	}
	found.Missing = conf.missing
	if found.Path == found.HostPath {
		return found, conf, nil, gaps
	}
	if host = read(found.HostPath); host == nil {
		return found, conf, nil, gaps
	}
	if found.Stale = !slices.Equal(conf.servers, host.servers); !found.Stale {
		host = nil
	}
	return found, conf, host, gaps
}

// wireQuestion is a question as it goes out.
type wireQuestion struct {
	observe.Question
	name  string
	qtype uint16
}

// wireQuestions leaves out what cannot be asked, and puts a control and one of
// the others first: by those two a server is given up.
func wireQuestions(names []observe.Question) ([]wireQuestion, []observe.Gap) {
	var list []wireQuestion
	var gaps []observe.Gap
	for _, q := range names {
		name, ok := wireName(q.Name)
		qtype, known := dns.StringToType[q.Type]
		if !ok || !known {
			gaps = append(gaps, observe.Gap{Source: "dns", Object: q.Name, Text: "this is no name that a name server could be asked for"})
			continue
		}
		list = append(list, wireQuestion{q, name, qtype})
	}
	if i := slices.IndexFunc(list, func(q wireQuestion) bool { return q.Control }); i > 0 {
		control := list[i]
		list = slices.Insert(slices.Delete(list, i, i+1), 0, control)
	}
	return list[:min(len(list), maxQuestions)], gaps
}

// asked is one name server and what it said.
type asked struct {
	resolver
	answers []observe.Answer
	cut     int // questions that the end of the look cut short
}

// firstQuestions are those whose silence condemns a server.
const firstQuestions = 2

// askAll asks all questions side by side. The first two go ahead, and the
// others as soon as one of them has any answer: a dead server costs one
// time-out and two packets, not one for each question.
func (a *asked) askAll(ctx context.Context, questions []wireQuestion) {
	first := min(firstQuestions, len(questions))
	replies := make([]reply, len(questions))
	signs := make(chan bool, first)
	var wg sync.WaitGroup
	for i, q := range questions[:first] {
		wg.Go(func() {
			replies[i] = a.ask(ctx, q.name, q.qtype)
			signs <- replies[i].Outcome != outcomeTimeout
		})
	}
	alive := false
	for range first {
		if alive = <-signs; alive {
			break
		}
	}
	for i, q := range questions[first:] {
		if alive {
			wg.Go(func() { replies[first+i] = a.ask(ctx, q.name, q.qtype) })
			continue
		}
		replies[first+i] = reply{
			Answer: observe.Answer{Outcome: outcomeTimeout, Text: "not asked: the first questions got no answer"},
			cut:    slices.ContainsFunc(replies[:first], func(r reply) bool { return r.cut }),
		}
	}
	wg.Wait()
	for i, r := range replies {
		if r.cut {
			a.cut++
			continue
		}
		r.Name, r.Type, r.Control = questions[i].Name, questions[i].Type, questions[i].Control
		a.answers = append(a.answers, r.Answer)
	}
}

// lookup asks those name servers that answered, in their order, as smtp(8)
// would: the next one is asked where one fails.
func (p dnsProbe) lookup(ctx context.Context, d observe.DNS, name string, qtype uint16) (reply, error) {
	wire, ok := wireName(name)
	if !ok {
		return reply{}, fmt.Errorf("look up %q: this is no name that a name server could be asked for", name)
	}
	last := fmt.Errorf("look up %q: no name server answers", name)
	for _, s := range d.Servers {
		if len(s.Answers) > 0 && !slices.ContainsFunc(s.Answers, func(a observe.Answer) bool { return !a.Failed() }) {
			continue
		}
		r := resolver{address: s.Address, port: p.port}.ask(ctx, wire, qtype)
		if !r.Failed() {
			return r, nil
		}
		last = fmt.Errorf("look up %q at %s: %s %s", name, net.JoinHostPort(s.Address, p.port), r.Outcome, r.Text)
	}
	return reply{}, last
}
