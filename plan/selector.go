package plan

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"holdfast/postfix"
)

// Selector is a choice of messages, as data. Conditions of different kinds
// narrow the choice; values of one kind add to it: two senders and a domain
// mean the mail of either sender that has a recipient in the domain.
//
// The zero Selector selects nothing. Everything is selected by All, which must
// be said; All beside conditions changes nothing, they narrow it. A kind that
// is there but has no value, a list that is empty and not nil, can be
// satisfied by no message: IDs read from an empty file select nothing, and do
// not turn "these of the hold queue" into the whole queue. JSON keeps the
// difference, by leaving out nil lists only.
//
// Conditions on recipients (Recipients, Domains, NextHops, Causes, Texts) look
// at recipients that are still to do, and one recipient must satisfy them all:
// a domain and a cause mean a recipient in that domain who waits for that
// cause. One such recipient is enough to select the message with all the
// others that it has.
//
// Letters are compared without regard to case everywhere but in IDs and
// MessageIDs. That includes the local part of an address, which RFC 5321 (2.4)
// leaves to the receiving host: Postfix folds it in all its own tables, and
// who looks for one spelling at night means them all.
//
// Values are valid UTF-8, or JSON could not carry them; "*" stands for bytes
// that are not.
type Selector struct {
	// All selects every message that the other conditions do not exclude.
	All bool `json:"all,omitzero"`
	// Queues are the queues that a message may be in.
	Queues []postfix.Queue `json:"queues,omitzero"`
	// IDs are queue IDs, exact.
	IDs []postfix.QueueID `json:"ids,omitzero"`
	// Senders are patterns for the envelope sender. A pattern is an address;
	// "<>" for the null sender; "@example.com" for all addresses in exactly
	// this domain, "@.example.com" in its sub-domains; or a text in which each
	// "*" stands for any run of characters, over the whole address. A
	// backslash takes a following "*" or backslash literally. An address may
	// stand between angle brackets, as logs write it.
	Senders []string `json:"senders,omitzero"`
	// Recipients are patterns as in Senders, for the envelope recipient or the
	// original one, before aliases and other rewriting.
	Recipients []string `json:"recipients,omitzero"`
	// Domains are patterns for the recipient's domain: "example.com" exactly,
	// ".example.com" for its sub-domains and not itself, or with "*".
	// International names match in both of their forms.
	Domains []string `json:"domains,omitzero"`
	// NextHops are patterns as in Domains for where Postfix hands the
	// recipient to. A pattern without colon and brackets is compared with each
	// part of a next hop, without its brackets: "mx.example.com" finds
	// "smtp:[mx.example.com]:587". Any other is compared with the whole.
	NextHops []string `json:"next_hops,omitzero"`
	// Causes are classes of the last deferral, as postfix.Classify names them.
	Causes []postfix.Cause `json:"causes,omitzero"`
	// Texts are searched in the reason of the last deferral: a part of it, or
	// a regular expression (RE2) between slashes, in which "(?-i)" brings back
	// the difference of case.
	Texts []string `json:"texts,omitzero"`
	// Clients are where the message came from: an IP address, a network
	// ("10.0.0.0/8"), or a pattern for the name as in Domains. Postfix's name
	// for a client without one is "unknown".
	Clients []string `json:"clients,omitzero"`
	// SASLUsers are login names of the submitting client, exact or with "*".
	SASLUsers []string `json:"sasl_users,omitzero"`
	// OlderThan selects mail that arrived this long ago or longer, NewerThan
	// mail that arrived more recently. Every message is one or the other.
	OlderThan Duration `json:"older_than,omitzero"`
	NewerThan Duration `json:"newer_than,omitzero"`
	// LargerThan selects messages of more bytes than this (message_size of
	// postqueue).
	LargerThan Size `json:"larger_than,omitzero"`
	// MessageIDs are values of the Message-ID header, exact, with or without
	// angle brackets.
	MessageIDs []string `json:"message_ids,omitzero"`
	// Headers are "Name: text": a header of that name whose decoded value
	// contains the text, or matches a regular expression between slashes as in
	// Texts. "Name:" alone asks for the header to be there.
	Headers []string `json:"headers,omitzero"`
	// Where is an expression over the fields that WhereFields lists.
	Where string `json:"where,omitzero"`
}

// IsZero reports whether nothing at all is said. Such a Selector selects
// nothing.
func (s Selector) IsZero() bool {
	for _, k := range kinds() {
		if k.given(&s) {
			return false
		}
	}
	return true
}

// kind is one kind of condition. This table is the only place that joins the
// name of a flag with a field, so that flags, texts and errors cannot differ.
type kind struct {
	flag, value, doc string
	// how tells how a value is written, for the hint of an error.
	how string
	// single: the flag may be given once. commas: a flag takes several values,
	// since none can contain a comma.
	single, commas bool

	given  func(*Selector) bool
	values func(*Selector) []string
	set    func(*Selector, string) error
}

func kinds() []kind {
	const address = `write user@example.com, @example.com, '<>' for the null sender, or a pattern with *`
	const domain = "write example.com, .example.com for its sub-domains, or a pattern with *"
	const pattern = "write a part of the text, or a regular expression between slashes: '/timed? out/'"
	return []kind{
		{
			flag: "all", doc: "every message that no other flag excludes", how: "write --all", single: true,
			given: func(s *Selector) bool { return s.All },
			set:   setAll,
		},
		list("queue", "QUEUE", "in this queue", "write one of "+queueNames(),
			func(s *Selector) *[]postfix.Queue { return &s.Queues }, postfix.Queue.String, parseQueue),
		list("id", "ID", "with this queue ID", "write it as postqueue -p shows it, without the mark (* ! #) behind it",
			func(s *Selector) *[]postfix.QueueID { return &s.IDs }, text, parseID),
		texts("sender", "ADDRESS", "from this sender: address, @domain, '<>' or with *", address,
			func(s *Selector) *[]string { return &s.Senders }),
		texts("recipient", "ADDRESS", "with a recipient: address, @domain or with *", address,
			func(s *Selector) *[]string { return &s.Recipients }),
		texts("domain", "DOMAIN", "with a recipient in a domain: name, .name for its sub-domains, or with *", domain,
			func(s *Selector) *[]string { return &s.Domains }),
		texts("next-hop", "HOST", "with a recipient that goes to this next hop", domain,
			func(s *Selector) *[]string { return &s.NextHops }),
		list("cause", "CAUSE", "with a recipient deferred for this cause, for example dns", "write one of "+causeNames(),
			func(s *Selector) *[]postfix.Cause { return &s.Causes }, text, parseCause),
		texts("text", "TEXT", "with a recipient whose deferral reason contains TEXT, or matches /TEXT/", pattern,
			func(s *Selector) *[]string { return &s.Texts }),
		texts("client", "CLIENT", "received from this client: name, IP address or network",
			"write an address (192.0.2.1), a network (192.0.2.0/24), a name, .example.com, or a pattern with *",
			func(s *Selector) *[]string { return &s.Clients }),
		texts("sasl-user", "USER", "submitted by this login name", "write the login name, or a pattern with *",
			func(s *Selector) *[]string { return &s.SASLUsers }),
		limit("older-than", "AGE", "arrived this long ago or longer, for example 90m or 3d", durationHow,
			func(s *Selector) *Duration { return &s.OlderThan }),
		limit("newer-than", "AGE", "arrived more recently than this", durationHow,
			func(s *Selector) *Duration { return &s.NewerThan }),
		limit("larger-than", "SIZE", "larger than this, for example 10M", "write bytes, or a number with a unit: 500k, 10M, 1GiB",
			func(s *Selector) *Size { return &s.LargerThan }),
		texts("message-id", "ID", "with this Message-ID", "write the value of the header, with or without angle brackets",
			func(s *Selector) *[]string { return &s.MessageIDs }),
		texts("header", "NAME: TEXT", "with a header whose value contains TEXT, or matches /TEXT/",
			"write 'Subject: part of its value', 'Subject: /regular expression/', or 'Subject:' for any value",
			func(s *Selector) *[]string { return &s.Headers }),
		{
			flag: "where", value: "EXPR", doc: "for which this expression is true", how: whereHow, single: true,
			given:  func(s *Selector) bool { return s.Where != "" },
			values: func(s *Selector) []string { return []string{s.Where} },
			set:    setWhere,
		},
	}
}

const durationHow = "write whole numbers with w, d, h, m or s: 90m, 12h, 3d, 1w, 1d12h"

func text[T ~string](v T) string { return string(v) }

func list[T any](flag, value, doc, how string, field func(*Selector) *[]T, format func(T) string, parse func(string) (T, error)) kind {
	return kind{
		flag: flag, value: value, doc: doc, how: how, commas: true,
		given: func(s *Selector) bool { return *field(s) != nil },
		values: func(s *Selector) []string {
			out := make([]string, 0, len(*field(s)))
			for _, v := range *field(s) {
				out = append(out, format(v))
			}
			return out
		},
		set: func(s *Selector, value string) error {
			v, err := parse(value)
			if err == nil {
				*field(s) = append(*field(s), v)
			}
			return err
		},
	}
}

func texts(flag, value, doc, how string, field func(*Selector) *[]string) kind {
	k := list(flag, value, doc, how, field, text, func(v string) (string, error) { return v, nil })
	k.commas = false
	return k
}

// amount is what Duration and Size have in common.
type amount[T any] interface {
	*T
	UnmarshalText([]byte) error
	String() string
}

func limit[T ~int64, P amount[T]](flag, value, doc, how string, field func(*Selector) P) kind {
	return kind{
		flag: flag, value: value, doc: doc, how: how, single: true,
		given:  func(s *Selector) bool { return *field(s) != 0 },
		values: func(s *Selector) []string { return []string{field(s).String()} },
		set: func(s *Selector, value string) error {
			if *field(s) != 0 {
				return errTwice
			}
			return field(s).UnmarshalText([]byte(value))
		},
	}
}

// FlagDoc describes one flag of the selection language.
type FlagDoc struct {
	// Name is the flag without dashes, Value what stands for its value in a
	// help text ("" for a flag without one).
	Name, Value string
	Doc         string
	// Repeated tells that the flag may be given again, to add a value.
	Repeated bool
}

// Flags lists the flags of the selection language in the order in which help
// texts and String write them.
func Flags() []FlagDoc {
	all := kinds()
	docs := make([]FlagDoc, 0, len(all))
	for _, k := range all {
		docs = append(docs, FlagDoc{Name: k.flag, Value: k.value, Doc: k.doc, Repeated: !k.single})
	}
	return docs
}

// Set adds the value of one flag, named without its dashes. Queues, IDs and
// causes may be several, with commas between them. What the flag cannot mean
// is a *postfix.Error of kind Usage; what only shows when all is known is found
// by Compile.
func (s *Selector) Set(flag, value string) error {
	k, ok := kindOf(flag)
	if !ok {
		return &postfix.Error{Kind: postfix.Usage, Op: "select by", Object: strconv.QuoteToASCII(clip(flag)), Err: errUnknownFlag}
	}
	parts := []string{value}
	if k.commas {
		parts = strings.Split(value, ",")
	}
	for _, part := range parts {
		if k.commas {
			part = strings.TrimSpace(part)
		}
		if err := k.set(s, part); err != nil {
			return mistake(flag, part, err)
		}
	}
	return nil
}

// String returns the selection as command-line flags in canonical form: sorted
// within each kind, each value once, quoted for a POSIX shell, with $'...'
// where a value has characters that must not reach a terminal. The zero
// Selector is "".
func (s Selector) String() string {
	var parts []string
	for _, k := range kinds() {
		switch {
		case !k.given(&s):
		case k.values == nil:
			parts = append(parts, "--"+k.flag)
		default:
			values := k.values(&s)
			slices.Sort(values)
			values = slices.Compact(values)
			if len(values) == 0 {
				// No flag says "none of these"; an empty value is what Set
				// and Compile refuse, so nothing wider can come of pasting it.
				values = []string{""}
			}
			for _, v := range values {
				parts = append(parts, "--"+k.flag+" "+shellQuote(v))
			}
		}
	}
	return strings.Join(parts, " ")
}

func setAll(s *Selector, value string) error {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return errors.New("neither true nor false")
	}
	s.All = on
	return nil
}

func setWhere(s *Selector, value string) error {
	if s.Where != "" {
		return errTwice
	}
	if strings.TrimSpace(value) == "" {
		return errEmpty
	}
	s.Where = value
	return nil
}
