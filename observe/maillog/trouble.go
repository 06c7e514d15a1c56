package maillog

import (
	"strings"

	"holdfast/postfix"
)

// trouble is one kind of complaint.
type trouble struct {
	program     string
	severity    string
	cause       postfix.Cause
	group       string
	text        []byte
	count       int64
	first, last int64
}

// trouble tallies a line with a severity.
func (t *Tally) trouble(r *record) {
	b := append(append(t.scratch[:0], r.program...), ' ')
	b = append(append(b, r.severity...), ' ')
	prefix := len(b)
	text := r.text
	if n := idLength(text); n > 0 {
		text = text[n+2:]
	}
	b = appendTrouble(b, text)
	t.scratch = b
	key := hashOf(b)
	x := t.troubles.find(key)
	if x == nil {
		group := string(b[prefix:])
		x = t.troubles.add(key, trouble{
			program: string(r.program), severity: r.severity, group: group, first: r.at,
			cause: signature(string(r.program), r.severity, group),
		})
	}
	x.count++
	x.last = r.at
	x.text = append(x.text[:0], r.text[:min(len(r.text), longestText)]...)
}

// appendTrouble appends a complaint with "*" for what varies: numbers, names of
// hosts, addresses, queue IDs. Paths and services stay, they are what it is about.
func appendTrouble(dst, text []byte) []byte {
	text = text[:min(len(text), longestText)]
	for len(text) > 0 {
		n, _ := breaks(text)
		if n == 0 {
			if end := enclosed(text); end > 0 {
				dst, text = append(dst, "<*>"...), text[end:]
				continue
			}
			dst, text = append(dst, text[0]), text[1:]
			continue
		}
		dst, text = appendTroubleWord(dst, text[:n]), text[n:]
	}
	return dst
}

func appendTroubleWord(dst, word []byte) []byte {
	end := punctuation(word)
	stem := word[:len(word)-len(end)]
	digits, dots := 0, 0
	for i, c := range stem {
		switch {
		case c == '@', c == '[' && i+1 < len(stem) && stem[len(stem)-1] == ']':
			return append(append(dst, '*'), end...)
		case c == '/':
			return appendNumberless(dst, word)
		case c >= '0' && c <= '9':
			digits++
		case c == '.':
			dots++
		}
	}
	if dots > 0 || digits >= 3 && len(stem) >= 6 {
		return append(append(dst, '*'), end...)
	}
	return appendNumberless(dst, word)
}

// appendNumberless appends a word with each number in it as one "*".
func appendNumberless(dst, word []byte) []byte {
	for i := 0; i < len(word); i++ {
		if word[i] < '0' || word[i] > '9' {
			dst = append(dst, word[i])
			continue
		}
		if i == 0 || word[i-1] < '0' || word[i-1] > '9' {
			dst = append(dst, '*')
		}
	}
	return dst
}

// sign is one root cause as Postfix words it. All parts must be in the text,
// in lower case; program, where it is set, must be the one that says it.
type sign struct {
	cause   postfix.Cause
	program string
	parts   []string
}

// signature names the cause of a complaint, UnknownCause where the text is a
// sign of none. The first that fits counts: what names the fault stands before
// what only follows from it.
func signature(program, severity, text string) postfix.Cause {
	text = strings.ToLower(text)
	for _, s := range signs {
		if s.program != "" && s.program != program {
			continue
		}
		if containsAll(text, s.parts) {
			return s.cause
		}
	}
	if program == "qmgr" && severity != "warning" {
		return postfix.QueueManager // it died of whatever this says
	}
	return postfix.UnknownCause
}

func containsAll(text string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// signs are read from the msg_warn and msg_fatal calls of Postfix 3.4 to 3.11,
// and for "*" see appendTrouble.
var signs = []sign{
	// The file system. Postfix's words are those of strerror(3).
	{postfix.StorageSpace, "", []string{"no space left on device"}},
	{postfix.StorageSpace, "", []string{"not enough free space in mail queue"}},
	{postfix.StorageSpace, "", []string{"disk quota exceeded"}},
	{postfix.StorageReadonly, "", []string{"read-only file system"}},
	{postfix.StorageSpace, "", []string{"queue file write error"}},

	// What is asked about mail that comes in.
	{postfix.Milter, "", []string{"milter service"}},
	{postfix.Milter, "", []string{"milter ", "smfic_"}},
	{postfix.Milter, "", []string{"milter ", "can't read"}},
	{postfix.Milter, "", []string{"milter ", "can't write"}},
	{postfix.Milter, "", []string{"milter ", "unreasonable"}},
	{postfix.Milter, "", []string{"milter ", "timeout"}},
	{postfix.PolicyService, "", []string{"problem talking to server", "policy"}},
	{postfix.PolicyService, "", []string{"policy", "connect"}},
	{postfix.PolicyService, "smtpd", []string{"problem talking to server"}},
	{postfix.PolicyService, "smtpd", []string{"connect to *: "}},
	{postfix.PolicyService, "smtpd", []string{"timeout on", "while reading"}},

	// Tables and the plugins for them.
	{postfix.LookupTable, "", []string{"unsupported dictionary type"}},
	{postfix.LookupTable, "", []string{"table lookup problem"}},
	{postfix.LookupTable, "", []string{"lookup error for"}},
	{postfix.LookupTable, "", []string{"open database"}},
	{postfix.LookupTable, "", []string{"dlopen failure"}},
	{postfix.LookupTable, "", []string{"dlsym failure"}},
	{postfix.LookupTable, "", []string{"dict_"}},
	{postfix.LookupTable, "", []string{"connect to mysql server"}},
	{postfix.LookupTable, "", []string{"connect to pgsql server"}},
	{postfix.LookupTable, "", []string{"unable to bind to server"}},
	{postfix.LookupTable, "", []string{"is unavailable", "table"}},
	{postfix.LookupTable, "", []string{"is unavailable", "hash:"}},
	{postfix.LookupTable, "", []string{"is unavailable", "open"}},
	{postfix.LookupTable, "", []string{"is older than source file"}},
	{postfix.LookupTable, "", []string{"lookup failure"}},
	{postfix.LookupTable, "proxymap", []string{"lookup"}},

	// Sessions with other servers.
	{postfix.TLS, "", []string{"tls library problem"}},
	{postfix.TLS, "", []string{"disabling tls support"}},
	{postfix.TLS, "", []string{"tls won't be enabled"}},
	{postfix.TLS, "", []string{"private key from file"}},
	{postfix.TLS, "", []string{"private key"}},
	{postfix.TLS, "", []string{"certificate"}},
	{postfix.TLS, "", []string{"tlsa"}},
	{postfix.TLS, "", []string{"tls policy"}},
	{postfix.TLS, "", []string{"tls engine"}},
	{postfix.TLS, "", []string{"tlsmgr"}},
	{postfix.Auth, "smtp", []string{"sasl"}},
	{postfix.Auth, "lmtp", []string{"sasl"}},
	{postfix.Auth, "", []string{"connect to saslauthd"}},
	{postfix.Auth, "", []string{"auth socket"}},
	{postfix.Auth, "", []string{"no sasl authentication mechanisms"}},
	{postfix.Auth, "", []string{"sasl per-process initialization failed"}},
	{postfix.DNS, "", []string{"name service error"}},
	{postfix.DNS, "", []string{"malformed or unexpected name server reply"}},
	{postfix.DNS, "", []string{"has a valid address record"}},
	{postfix.DNS, "", []string{"dns_query", "failed"}},
	{postfix.RoutingLoop, "", []string{"loops back to myself"}},
	{postfix.RoutingLoop, "", []string{"greeted me with my own hostname"}},
	{postfix.RoutingLoop, "", []string{"hopcount exceeded"}},
	{postfix.RoutingLoop, "", []string{"mail forwarding loop"}},
	{postfix.Egress, "smtp", []string{"network is unreachable"}},
	{postfix.Egress, "smtp", []string{"cannot assign requested address"}},

	// Too much of something.
	{postfix.ProcessLimit, "master", []string{"reached its process limit"}},
	{postfix.ProcessLimit, "", []string{"resource temporarily unavailable", "fork"}},
	{postfix.ProcessLimit, "", []string{"cannot allocate memory"}},
	{postfix.ProcessLimit, "", []string{"too many open files"}},
	{postfix.Flood, "", []string{"connection concurrency limit exceeded"}},
	{postfix.Flood, "", []string{"connection rate limit exceeded"}},
	{postfix.Flood, "", []string{"rate limit exceeded"}},
	{postfix.ActiveQueueFull, "qmgr", []string{"is using up", "active queue entries"}},

	// The spool itself.
	{postfix.Corruption, "", []string{"saving corrupt file"}},
	{postfix.Corruption, "", []string{"message rejected: missing end record"}},
	{postfix.Corruption, "", []string{"malformed record type"}},
	{postfix.Corruption, "", []string{"bogus file name"}},
	{postfix.Corruption, "", []string{"name/inode mismatch"}},
	{postfix.Corruption, "", []string{"queue file names were changed"}},
	{postfix.Corruption, "", []string{"hard links"}},
	{postfix.Corruption, "", []string{"not a regular file"}},
	{postfix.Corruption, "", []string{"input/output error"}},
	{postfix.Clock, "", []string{"file system clock is"}},
	{postfix.Clock, "", []string{"seconds into the future"}},
	{postfix.Permissions, "", []string{"not owned by"}},
	{postfix.Permissions, "", []string{"not writable"}},
	{postfix.Permissions, "", []string{"permission denied"}},

	// Postfix's own processes.
	{postfix.QueueManager, "qmgr", []string{"watchdog timeout"}},
	{postfix.QueueManager, "qmgr", []string{"timeout connecting to transport"}},
	{postfix.QueueManager, "qmgr", []string{"premature disconnect"}},
	{postfix.QueueManager, "qmgr", []string{"unexpected attribute"}},
	{postfix.QueueManager, "master", []string{"/qmgr"}},
	{postfix.QueueManager, "", []string{"public/qmgr"}},
	{postfix.Configuration, "qmgr", []string{"connect to transport"}},
	{postfix.Configuration, "", []string{"connect #", "to subsystem"}},
	{postfix.Configuration, "", []string{"unknown mail transport"}},
	{postfix.Configuration, "", []string{"bad command startup"}},
	{postfix.Configuration, "master", []string{"exit status"}},
	{postfix.Configuration, "", []string{"unknown smtpd restriction"}},
	{postfix.Configuration, "", []string{"configuration"}},
	{postfix.Configuration, "", []string{"bad numerical"}},
	{postfix.Configuration, "", []string{"bad boolean"}},
	{postfix.Configuration, "", []string{"bad string length"}},
	{postfix.Configuration, "", []string{"unused parameter"}},
	{postfix.Configuration, "", []string{"undefined parameter"}},
	{postfix.Configuration, "", []string{"parameter ", "must"}},
	{postfix.Configuration, "", []string{"main.cf"}},
	{postfix.Configuration, "", []string{"master.cf"}},
	{postfix.Configuration, "master", []string{"bind"}},
	{postfix.Configuration, "", []string{"do not list domain", "in both"}},
	{postfix.PostfixDown, "postfix-script", []string{"is not running"}},
}
