package postfix

import (
	"strconv"
	"strings"
)

// rule gives a class, and what is worth saying about it, to every text that
// contains one of its phrases, or whose enhanced code is one of its codes.
// Phrases are in lower case and begin where a word begins, so that "rbl" is not
// found in "marble.example". Rules are tried in order: what names its cause
// outright stands before what only hints at it. No phrase holds a number of
// maskedDigits or more: AppendMasked takes those away.
type rule struct {
	cause   Cause
	only    byte // '4': temporary replies only, '5': permanent ones only
	phrases []string
	codes   []string // "7.28" of 4.7.28 and 5.7.28, or a range "7.606-7.649"; whole reply codes in codeRules

	// What Explain says. An empty field is said as for the class.
	says   string
	who    Actor
	next   string
	source string
	by     string // the provider whose words these are
}

// ruleBook is a list of rules made ready for one pass over a text. Every queued
// message has a reason, and most of a large queue have one of their own.
type ruleBook struct {
	rules []rule
	// start holds the phrases by their first two bytes, rules in order. Two
	// pairs may share a place: the phrase is compared anyway.
	start  [places][]phrase
	byCode map[string][]int
}

const places = 1 << 10

func place(a, b byte) int { return (int(a)*37 + int(b)) % places }

type phrase struct {
	text string
	rule int
}

func bind(lists ...[]rule) *ruleBook {
	b := &ruleBook{byCode: map[string][]int{}}
	for _, list := range lists {
		for i := range list {
			n := len(b.rules)
			b.rules = append(b.rules, list[i])
			for _, text := range list[i].phrases {
				at := place(text[0], text[1])
				b.start[at] = append(b.start[at], phrase{text, n})
			}
			for _, codes := range list[i].codes {
				for _, code := range codesOf(codes) {
					b.byCode[code] = append(b.byCode[code], n)
				}
			}
		}
	}
	return b
}

// codesOf spells out a range of codes: "7.500-7.699".
func codesOf(s string) []string {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return []string{s}
	}
	at := strings.IndexByte(from, '.') + 1 // 0 for whole reply codes
	var all []string
	for n := number(from[at:]); n <= number(to[at:]); n++ {
		all = append(all, from[:at]+strconv.Itoa(n))
	}
	return all
}

// match returns the first rule that has a phrase in the text and holds for this
// kind of answer.
func (b *ruleBook) match(text string, kind byte) *rule {
	best := len(b.rules)
	inWord := false
	for i := 0; i+1 < len(text); i++ {
		c := text[i]
		word := isWordByte(c)
		if word && inWord {
			continue // a phrase begins where a word begins
		}
		inWord = word
		for _, p := range b.start[place(c, text[i+1])] {
			if p.rule >= best {
				break
			}
			if only := b.rules[p.rule].only; (only == 0 || only == kind) && strings.HasPrefix(text[i:], p.text) {
				best = p.rule
				break
			}
		}
	}
	if best == len(b.rules) {
		return nil
	}
	return &b.rules[best]
}

// find returns the first rule for an enhanced code, or for a reply code.
func (b *ruleBook) find(code string, kind byte) *rule {
	if len(code) > 2 && code[1] == '.' {
		code = code[2:]
	}
	for _, n := range b.byCode[code] {
		if only := b.rules[n].only; only == 0 || only == kind {
			return &b.rules[n]
		}
	}
	return nil
}

func number(s string) int {
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}
