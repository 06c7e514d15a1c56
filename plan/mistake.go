package plan

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"holdfast/postfix"
)

var (
	errTwice       = errors.New("already given, and only one value is possible")
	errEmpty       = errors.New("no value is given")
	errUnknownFlag = errors.New("there is no such condition")
)

func kindOf(flag string) (kind, bool) {
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.flag == flag })
	if i < 0 {
		return kind{}, false
	}
	return all[i], true
}

// mistake is the error of a value that cannot be understood. The value, and
// what libraries quote of it, is echoed in ASCII and not in full: it may have
// been pasted from hostile mail.
func mistake(flag, value string, err error) error {
	if text := printable(err.Error()); text != err.Error() {
		err = errors.New(text)
	}
	e := &postfix.Error{Kind: postfix.Usage, Op: "read", Object: "--" + flag + " " + strconv.QuoteToASCII(clip(value)), Err: err}
	if k, ok := kindOf(flag); ok {
		e.Hint = k.how
	}
	return e
}

// printable is a message with escapes for all that is not printable ASCII.
func printable(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "..."
	}
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		return s
	}
	quoted := strconv.QuoteToASCII(s)
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(quoted[1 : len(quoted)-1])
}

func queueNames() string {
	names := make([]string, 0, len(postfix.Queues()))
	for _, q := range postfix.Queues() {
		names = append(names, q.String())
	}
	return strings.Join(names, ", ")
}

func causeNames() string {
	causes := postfix.ReasonCauses()
	names := make([]string, 0, len(causes))
	for _, c := range causes {
		names = append(names, string(c))
	}
	return strings.Join(names, ", ")
}

// The parsers say what is wrong; the hint of the flag says how it is right.

func parseQueue(s string) (postfix.Queue, error) {
	q, err := postfix.ParseQueue(s)
	if err != nil {
		return q, errors.New("there is no such queue")
	}
	return q, nil
}

func parseID(s string) (postfix.QueueID, error) {
	if !postfix.ValidQueueID(s) {
		return "", errors.New("not a queue ID")
	}
	if strings.EqualFold(s, "all") {
		// To postsuper it is no ID but a word, and hands remember that.
		return "", errors.New("no message; everything is --all")
	}
	return postfix.QueueID(s), nil
}

func parseCause(s string) (postfix.Cause, error) {
	c, ok := postfix.ParseCause(s)
	if !ok {
		return "", errors.New("no such cause of a deferral" + didYouMean(s, strings.Split(causeNames(), ", ")))
	}
	return c, nil
}

// didYouMean names the known words that are nearest to a wrong one, as the end
// of an error message.
func didYouMean(word string, known []string) string {
	best, near := 3, ""
	for _, k := range known {
		if d := distance(strings.ToLower(clip(word)), k); d < best && d < max(len(k), 2) {
			best, near = d, k
		}
	}
	if near == "" {
		for _, k := range known {
			if len(word) >= 3 && (strings.Contains(k, word) || strings.HasPrefix(word, k) && len(k) >= 3) {
				near = k
				break
			}
		}
	}
	if near == "" {
		return ""
	}
	return "; did you mean " + strconv.Quote(near) + "?"
}

// distance is the number of letters to change, add or leave out (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// shellQuote makes one word of a POSIX shell. What does not print is written
// as $'...' (POSIX.1-2024, 2.2.4): the text is shown and pasted, and a raw
// escape sequence would act on the terminal first.
func shellQuote(s string) string {
	const safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-"
	if s != "" && strings.Trim(s, safe) == "" {
		return s
	}
	if strings.IndexFunc(s, func(r rune) bool { return r == '\uFFFD' || !strconv.IsPrint(r) }) < 0 {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r != '\uFFFD' && strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			for _, c := range []byte(string(r)) {
				b.WriteString(`\` + octal(c))
			}
		}
	}
	b.WriteString("'")
	return b.String()
}

// octal writes three digits, so that a digit behind them is not taken in.
func octal(c byte) string {
	return string([]byte{'0' + c>>6, '0' + c>>3&7, '0' + c&7})
}
