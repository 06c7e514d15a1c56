package replay

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"holdfast/postfix"
)

// longestAsked bounds what a remote text can ask for: it is a stranger's, and a
// job that waits for years has ended without saying so.
const longestAsked = 4 * time.Hour

// Read says what a delivery means for its next hop: status and dsn as in the
// log line of the delivery agent ("deferred", "4.7.0"), reason as there. The
// reason may be anybody's text.
func Read(status, dsn, reason string) Result {
	switch status {
	case "sent":
		return Result{Kind: Accepted}
	case "bounced", "expired", "force-expired":
		return Result{Kind: Bounced}
	}
	if postfix.Suspended(reason) {
		return Result{Kind: Suspended}
	}
	r := Result{Asked: Asked(reason)}
	switch postfix.Classify(dsn, reason) {
	case postfix.RemoteThrottling:
		r.Kind = Throttled
		if crowded.MatchString(reason) {
			r.Kind = Crowded
		}
	case postfix.Reputation:
		// It is put off for what came before; to press on makes it worse.
		r.Kind = Throttled
	case postfix.Greylisting:
		r.Kind = Greylisted
	case postfix.RemoteDown, postfix.DNS, postfix.Egress, postfix.TLS, postfix.Auth, postfix.Relayhost,
		postfix.ContentFilter, postfix.Configuration:
		// The agent found nobody to give it to, for this message or any other.
		r.Kind = Unreachable
	default:
		r.Kind = Deferred
	}
	return r
}

// crowded are the words for too many connections at one time, as against too
// many in a span of it: the remedy is another one.
var crowded = regexp.MustCompile(`(?i)concurren|simultaneous|parallel|too many (?:open |smtp |tcp )?(?:connections|sessions)(?:[^a-z]*$| from| to| at| open|,|\.|;|:)|connection limit|sessions? limit|maximum (?:number of )?(?:connections|sessions)`)

var (
	// inWords finds a span that follows a word of waiting, with no other number
	// between: "limit of 100 messages in 60 minutes" asks for nothing.
	inWords = regexp.MustCompile(`(?i)\b(?:again|retry|retrying|wait|come back|later|delay(?:ed)?|gr[ae]ylist(?:ed|ing)?|blocked|suspended|resume)\b[^0-9]{0,24}?\b([0-9]{1,6})\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h)\b`)
	onClock = regexp.MustCompile(`(?i)\b(?:again|retry|wait|come back|gr[ae]ylist(?:ed|ing)?)\b[^0-9]{0,24}?\b([0-9]{1,3}):([0-5][0-9]):([0-5][0-9])\b`)
)

// Asked reads from a reply how long its server wants to be left alone, 0 where
// it does not say. The longest that counts is four hours.
func Asked(reason string) time.Duration {
	times := func(s string, unit time.Duration) time.Duration {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return 0
		}
		return time.Duration(n) * unit
	}
	if m := onClock.FindStringSubmatch(reason); m != nil {
		return min(times(m[1], time.Hour)+times(m[2], time.Minute)+times(m[3], time.Second), longestAsked)
	}
	m := inWords.FindStringSubmatch(reason)
	if m == nil {
		return 0
	}
	unit := time.Second
	switch strings.ToLower(m[2])[0] {
	case 'm':
		unit = time.Minute
	case 'h':
		unit = time.Hour
	}
	return min(times(m[1], unit), longestAsked)
}
