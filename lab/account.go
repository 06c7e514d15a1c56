package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"holdfast/lab/world"
)

// Account is where every injected recipient is now: what a test compares with what a program under test claims.
// Each token is in exactly one of Refused, Delivered, Queued, Bounced, Missing and Unknown, by the strongest evidence:
// a provider's ledger first, then the queue, then Postfix's log. Twice, and Again, say more about some of Delivered.
type Account struct {
	Refused   []string `json:"refused"`   // never accepted by Postfix, and seen nowhere
	Delivered []string `json:"delivered"` // in the ledger, at least once
	Queued    []string `json:"queued"`    // in a queue of some instance, and not in the ledger
	Bounced   []string `json:"bounced"`   // Postfix's log says bounced or expired
	Missing   []string `json:"missing"`   // accepted, and nowhere: lost
	Unknown   []string `json:"unknown"`   // the injector did not learn the answer, and it is nowhere

	Twice []string `json:"twice"` // delivered more than once although each earlier 250 was answered: somebody's fault
	Again []string `json:"again"` // delivered more than once after a 250 that the world lost on purpose: nobody's fault
	// Strays are tokens in the ledger that this lab never injected.
	Strays []string `json:"strays"`
}

// Whole tells whether no mail was lost, doubled or made up.
func (a Account) Whole() bool { return len(a.Missing) == 0 && len(a.Twice) == 0 && len(a.Strays) == 0 }

func (a Account) String() string {
	return fmt.Sprintf("refused %d, delivered %d, queued %d, bounced %d, missing %d, unknown %d; twice %d, again %d, strays %d",
		len(a.Refused), len(a.Delivered), len(a.Queued), len(a.Bounced), len(a.Missing), len(a.Unknown), len(a.Twice), len(a.Again), len(a.Strays))
}

// Account compares everything injected with the ledger, the queues and the log. Take it when the lab is at rest: a
// message that is delivered between two looks may be seen in neither place.
func (l *Lab) Account(ctx context.Context) (Account, error) {
	injected, err := l.Injections()
	if err != nil {
		return Account{}, err
	}
	// Queues before ledger: what leaves a queue in between has been written to the ledger before.
	queued, err := l.queuedTokens(ctx)
	if err != nil {
		return Account{}, err
	}
	ledger, err := l.Ledger()
	if err != nil && !errors.Is(err, world.ErrTornLedger) {
		return Account{}, err
	}
	bounced, err := l.bouncedTokens()
	if err != nil {
		return Account{}, err
	}
	return settleAccount(injected, queued, bounced, ledger), nil
}

func settleAccount(injected []Injected, queued, bounced map[string]bool, ledger []world.LedgerEntry) Account {
	type visits struct{ answered, lost int }
	seen := map[string]*visits{}
	for _, e := range ledger {
		if e.Token == "" {
			continue
		}
		v := seen[e.Token]
		if v == nil {
			v = &visits{}
			seen[e.Token] = v
		}
		if e.Lost {
			v.lost++
		} else {
			v.answered++
		}
	}
	var a Account
	for _, in := range injected {
		v := seen[in.Token]
		delete(seen, in.Token)
		switch {
		case v != nil:
			a.Delivered = append(a.Delivered, in.Token)
			if v.answered > 1 {
				a.Twice = append(a.Twice, in.Token)
			} else if v.answered+v.lost > 1 {
				a.Again = append(a.Again, in.Token)
			}
		case queued[in.Token]:
			a.Queued = append(a.Queued, in.Token)
		case bounced[in.Token]:
			a.Bounced = append(a.Bounced, in.Token)
		case in.Fate == Refused:
			a.Refused = append(a.Refused, in.Token)
		case in.Fate == Unknown:
			a.Unknown = append(a.Unknown, in.Token)
		default:
			a.Missing = append(a.Missing, in.Token)
		}
	}
	for token := range seen {
		a.Strays = append(a.Strays, token)
	}
	return a
}

// queuedTokens looks into every queue of every instance: by postqueue where it looks, and by plain search for token
// text in the queues that it leaves out.
func (l *Lab) queuedTokens(ctx context.Context) (map[string]bool, error) {
	tokens := map[string]bool{}
	for _, in := range l.spec.Instances {
		list, err := l.Queue(ctx, in.Name)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			for _, r := range m.Recipients {
				tokens[tokenOf(r.Address)] = true
			}
		}
		for _, queue := range []string{"corrupt", "saved", "maildrop"} {
			if err := l.searchTokens(filepath.Join(l.SpoolDir(in.Name), queue), tokens); err != nil {
				return nil, err
			}
		}
	}
	return tokens, nil
}

func (l *Lab) searchTokens(dir string, tokens map[string]bool) error {
	pattern := regexp.MustCompile(regexp.QuoteMeta(token(l.Name, 0)[:len(token(l.Name, 0))-1]) + `[0-9]+[^@+"\x00]*@`)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || (err == nil && d.IsDir()) {
			return nil // gone since the listing
		}
		if err != nil {
			return fmt.Errorf("search queue: %w", err)
		}
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("search queue: %w", err)
		}
		for _, found := range pattern.FindAll(data, -1) {
			tokens[string(bytes.TrimSuffix(found, []byte("@")))] = true
		}
		return nil
	})
}

// finalLine matches the log line by which Postfix gives a recipient back: bounced, or expired (also returned to sender).
// A message whose time has ended can go back as a whole, in one line for all recipients of which earlier lines tell.
var (
	finalLine  = regexp.MustCompile(`: to=<([^>]*)>, .*status=(?:bounced|expired|force-expired)\b`)
	triedLine  = regexp.MustCompile(`\]: ([0-9A-Za-z]+): to=<([^>]*)>`)
	returnLine = regexp.MustCompile(`\]: ([0-9A-Za-z]+): from=<[^>]*>, status=(?:force-)?expired, returned to sender`)
)

func (l *Lab) bouncedTokens() (map[string]bool, error) {
	tokens := map[string]bool{}
	for _, in := range l.spec.Instances {
		data, err := os.ReadFile(l.HostPath(in.logFile()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read log of %q: %w", in.Name, err)
		}
		for _, m := range finalLine.FindAllSubmatch(data, -1) {
			tokens[tokenOf(string(m[1]))] = true
		}
		returned := map[string]bool{}
		for _, m := range returnLine.FindAllSubmatch(data, -1) {
			returned[string(m[1])] = true
		}
		for _, m := range triedLine.FindAllSubmatch(data, -1) {
			if returned[string(m[1])] {
				tokens[tokenOf(string(m[2]))] = true
			}
		}
	}
	return tokens, nil
}

// tokenOf is the token that the ledger would show for a recipient address: local part without quotes and extension.
func tokenOf(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return ""
	}
	local := strings.Trim(address[:at], `"`)
	local, _, _ = strings.Cut(local, "+")
	return local
}
