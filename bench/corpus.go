// Package bench measures Holdfast against the machine and against Postfix's
// own tools: how long a look at a jammed queue takes beside the bare reading
// of the same files, beside postqueue -j and beside qshape; how fast a log is
// summed up beside pflogsumm; how long a triage of both takes; and how much
// memory all that costs.
//
// Invariant: everything that is compared is measured on the same files, with a
// warm cache, taking turns, by real programs. Queue and log are made from fixed
// seeds, so that two runs measure the same; only inode numbers and the times in
// the log differ. What triage asks the network stays within a namespace.
//
// It never judges: the table sets each ratio beside its bar, and no test fails
// for a time, for a busy machine would make it a liar.
//
// Bugs: the queue is quiet while it is measured; no qmgr works on it. The
// mail system being down, postqueue starts showq itself, which saves it the
// way through master. For the same reason triage finds Postfix down, which
// spares it no question. The log names the queue's destinations, but not the
// queue's messages.
package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/lab/forge"
	"holdfast/postfix"
)

const (
	domains = 200
	senders = 500
	// newest is when the last message of every corpus arrived; the others came
	// in the three days before.
	newest = 1767225600
)

// A reason is a deferral as servers and Postfix word it. {rcpt}, {domain},
// {mx}, {ip} and {n} are filled in for each message.
type reason struct{ status, host, text string }

// reasons are thirty ways of not accepting a message, the commoner ones first.
// Most name the address or a session, so that hardly two texts are equal.
func reasons() []reason {
	said := func(status, reply, stage string) reason {
		return reason{status, "{mx}", "host {mx}[{ip}] said: " + reply + " (in reply to " + stage + ")"}
	}
	local := func(status, text string) reason { return reason{status, "", text} }
	const rcpt, data, mail = "RCPT TO command", "end of DATA command", "MAIL FROM command"
	return []reason{
		local("4.4.1", "connect to {mx}[{ip}]:25: Connection timed out"),
		said("4.2.0", "450 4.2.0 <{rcpt}>: Recipient address rejected: Greylisted for {n} seconds", rcpt),
		said("4.7.28", "421-4.7.28 Our system has detected an unusual rate of mail from your network {n}", data),
		local("4.4.1", "delivery temporarily suspended: connect to {mx}[{ip}]:25: Connection refused"),
		said("4.7.1", "451 4.7.1 <{rcpt}>: too many messages from this address, session {n}", rcpt),
		local("4.4.3", "Host or domain name not found. Name service error for name={domain} type=MX: Host not found, try again"),
		said("4.2.2", "452 4.2.2 <{rcpt}> The mailbox is over quota, ticket {n}", rcpt),
		said("4.3.2", "451 4.3.2 Please try again later, queue {n} is busy", data),
		local("4.4.2", "lost connection with {mx}[{ip}] while receiving the initial server greeting"),
		local("4.4.2", "conversation with {mx}[{ip}] timed out while sending RCPT TO"),
		said("4.7.0", "450 4.7.0 client host listed in a reputation service, reference {n}", mail),
		said("4.7.500", "451 4.7.500 Server busy, please try later from [192.0.2.1] ({n})", rcpt),
		local("4.7.5", "Server certificate not trusted"),
		local("4.7.4", "TLS is required, but was not offered by host {mx}[{ip}]"),
		said("4.1.8", "450 4.1.8 <{rcpt}>: Sender address rejected: Domain not found", rcpt),
		local("4.4.1", "connect to {mx}[{ip}]:25: No route to host"),
		local("4.4.1", "connect to {mx}[{ip}]:25: Network is unreachable"),
		said("4.3.1", "452 4.3.1 Insufficient system storage ({n})", mail),
		said("4.7.1", "450 4.7.1 <{rcpt}>: Recipient address rejected: policy service is away", rcpt),
		said("4.5.3", "452 4.5.3 Too many recipients in session {n}", rcpt),
		local("4.3.5", "Server configuration error, reference {n}"),
		local("4.4.6", "mail for {domain} loops back to myself"),
		said("4.0.0", "421 {mx} Service not available, closing transmission channel {n}", mail),
		said("4.4.5", "451 4.4.5 load too high for <{rcpt}>", rcpt),
		said("4.7.8", "454 4.7.8 Temporary authentication failure {n}", mail),
		local("4.3.0", "mail transport unavailable"),
		local("4.3.0", "temporary failure: command output {n}"),
		said("4.6.0", "451 4.6.0 message {n} could not be scanned for viruses", data),
		local("4.4.2", "delivery temporarily suspended: lost connection with {mx}[{ip}] while sending end of data -- message may be sent more than once"),
		said("4.2.1", "450 4.2.1 The user <{rcpt}> receives mail at a rate that is too high", rcpt),
	}
}

// message makes message i of the corpus. The same i gives the same message.
func message(i int, why []reason) *forge.Message {
	r := rand.New(rand.NewPCG(20260101, uint64(i))) //nolint:gosec // the same queue in every run is the point
	at := time.Unix(newest, 0).Add(-time.Duration(r.Int64N(int64(72 * time.Hour)))).Truncate(time.Microsecond)
	sender := r.IntN(senders)
	m := &forge.Message{
		Queue: postfix.Deferred, Arrival: at, NextTry: time.Unix(newest, 0).Add(time.Duration(r.IntN(4000)) * time.Second),
		Sender: fmt.Sprintf("billing%d@shop%d.example", sender, sender%40),
		// Sizes from 1 to 20 kB, small ones being commoner.
		Size:   int(1000 * math.Pow(20, r.Float64())),
		Client: postfix.Client{Name: fmt.Sprintf("app%d.shop.example", sender%8), Address: fmt.Sprintf("192.0.2.%d", 10+sender%8), Helo: "app"},
	}
	if sender%10 == 0 {
		m.SASLUser = fmt.Sprintf("shop%d", sender%40)
	}
	// One recipient each, as relays that send for applications have it: the bar
	// for memory is set for such messages.
	m.Recipients = []forge.Recipient{recipient(r, why)}
	return m
}

func recipient(r *rand.Rand, why []reason) forge.Recipient {
	// A few destinations have most of a backlog, as in every real one.
	d := int(math.Pow(domains, r.Float64())) - 1
	domain := fmt.Sprintf("dest%d.example", d)
	address := fmt.Sprintf("customer.%d@%s", r.IntN(1_000_000), domain)
	// Each destination has a trouble of its own and now and then another one.
	k := d % len(why)
	if r.IntN(5) == 0 {
		k = r.IntN(len(why))
	}
	fill := strings.NewReplacer("{rcpt}", address, "{domain}", domain, "{mx}", "mx"+fmt.Sprint(r.IntN(3))+"."+domain,
		"{ip}", fmt.Sprintf("198.51.100.%d", d), "{n}", fmt.Sprint(r.IntN(1_000_000)))
	out := &forge.Reason{Status: why[k].status, Host: fill.Replace(why[k].host), Text: fill.Replace(why[k].text)}
	return forge.Recipient{Address: address, Deferred: out}
}

// Corpus is a private Postfix with a forged queue.
type Corpus struct {
	Private    *forge.Private
	Messages   int
	Recipients int
}

// manifest is what a finished corpus directory says of itself.
type manifest struct{ Messages, Recipients int }

// Open returns the corpus of n messages in dir, which it makes unless an
// earlier call has finished it. What is half done is not used: the manifest is
// written last.
func Open(dir string, n int) (*Corpus, error) {
	for d := dir; len(d) > 1; d = filepath.Dir(d) {
		st, err := os.Stat(d) //nolint:gosec // whoever runs a benchmark may name a directory
		if err == nil && st.Mode().Perm()&0o005 != 0o005 {
			return nil, fmt.Errorf("make corpus: the mail owner cannot enter %q; choose a directory that is open to all", d)
		}
	}
	p, err := forge.NewPrivate(dir, &forge.Spool{HashDepth: 1})
	if err != nil {
		return nil, err
	}
	c := &Corpus{Private: p}
	path := filepath.Join(dir, "manifest.json")
	text, err := os.ReadFile(path) //nolint:gosec // likewise
	if err == nil {
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("read manifest of corpus %q: %w", dir, err)
		}
		if m.Messages != n {
			return nil, fmt.Errorf("open corpus %q: it has %d messages and not %d", dir, m.Messages, n)
		}
		c.Messages, c.Recipients = m.Messages, m.Recipients
		return c, nil
	}
	if err := c.fill(n); err != nil {
		return nil, err
	}
	if text, err = json.Marshal(manifest{c.Messages, c.Recipients}); err != nil {
		return nil, fmt.Errorf("write manifest of corpus: %w", err)
	}
	return c, os.WriteFile(path, text, 0o644) //nolint:gosec // likewise
}

// fill writes n messages, with a few writers a processor: most of the time
// goes into system calls.
func (c *Corpus) fill(n int) error {
	why := reasons()
	var next, recipients atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, 2*runtime.GOMAXPROCS(0))
	for range cap(failed) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				m := message(i, why)
				if _, err := c.Private.Spool.Write(m); err != nil {
					failed <- err
					return
				}
				recipients.Add(int64(len(m.Recipients)))
			}
		})
	}
	wg.Wait()
	close(failed)
	c.Messages, c.Recipients = n, int(recipients.Load())
	return <-failed
}
