package plan

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"holdfast/postfix"
)

// Fields is what an expression of --where sees of a message. Texts are
// compared as they are; lower() helps. The tag showq says that a field is only
// known from queue files.
type Fields struct {
	Queue        string `expr:"queue" doc:"the queue: maildrop, incoming, active, deferred, hold, corrupt or saved"`
	ID           string `expr:"id" doc:"the queue ID"`
	Sender       string `expr:"sender" doc:"the envelope sender, \"\" for the null sender"`
	SenderDomain string `expr:"sender_domain" doc:"the domain of the sender in lower case"`

	Recipients     []*RecipientFields `expr:"recipients" doc:"the recipients that are still to do: any(recipients, .domain == \"example.com\")"`
	RecipientCount int                `expr:"recipient_count" doc:"the number of recipients that are still to do"`
	Total          int                `expr:"total" doc:"the number of recipients at the start" showq:"no"`
	Done           int                `expr:"done" doc:"the number of recipients that were delivered or have failed" showq:"no"`
	Bounces        int                `expr:"bounces" doc:"the number of failed recipients whose notification is still to be sent" showq:"no"`
	Domains        []string           `expr:"domains" doc:"the domains of the recipients, each once, in lower case: \"example.com\" in domains"`
	NextHops       []string           `expr:"next_hops" doc:"the next hops of the recipients, each once"`
	Causes         []string           `expr:"causes" doc:"the causes why recipients wait, each once: \"dns\" in causes"`
	Texts          []string           `expr:"texts" doc:"the reasons of the last deferrals, each once"`
	Hosts          []string           `expr:"hosts" doc:"the remote servers that answered last, each once" showq:"no"`

	Size      int           `expr:"size" doc:"bytes of content: size > bytes(\"10M\")"`
	Arrival   time.Time     `expr:"arrival" doc:"when the message arrived: arrival < date(\"2026-03-01 14:00\")"`
	Age       time.Duration `expr:"age" doc:"the time since the message arrived: age > duration(\"1d\")"`
	NextTry   time.Time     `expr:"next_try" doc:"the earliest next attempt, the year 1 where none is planned" showq:"no"`
	Waiting   time.Duration `expr:"waiting" doc:"the time until the earliest next attempt, 0 where it is due or none is planned" showq:"no"`
	Expires   time.Time     `expr:"expires" doc:"when the next failed attempt returns the message" showq:"no"`
	ExpiresIn time.Duration `expr:"expires_in" doc:"the time until then, negative if it has passed" showq:"no"`

	ClientName    string    `expr:"client_name" doc:"the name of the client that sent the message" showq:"no"`
	ClientAddress string    `expr:"client_address" doc:"the IP address of that client" showq:"no"`
	Helo          string    `expr:"helo" doc:"what that client said in HELO or EHLO" showq:"no"`
	Protocol      string    `expr:"protocol" doc:"SMTP, ESMTP or the like" showq:"no"`
	SASLUser      string    `expr:"sasl_user" doc:"the login name of that client" showq:"no"`
	Filter        string    `expr:"filter" doc:"the content filter, transport:nexthop" showq:"no"`
	Redirect      string    `expr:"redirect" doc:"the address that replaces all recipients" showq:"no"`
	MessageID     string    `expr:"message_id" doc:"the Message-ID without angle brackets" showq:"no"`
	Headers       []*Header `expr:"headers" doc:"the headers: any(headers, .name == \"subject\" && .value contains \"invoice\")" showq:"no"`

	ForceExpire    bool   `expr:"force_expire" doc:"postsuper -e has marked the message to be returned"`
	FlushRequested bool   `expr:"flush_requested" doc:"postqueue -i has asked for an attempt" showq:"no"`
	SMTPUTF8       bool   `expr:"smtputf8" doc:"the message needs SMTPUTF8" showq:"no"`
	Damage         string `expr:"damage" doc:"why the queue file is not complete, \"\" if it is" showq:"no"`
}

// RecipientFields is what an expression sees of a recipient that is still to
// do.
type RecipientFields struct {
	Address  string `expr:"address" doc:"the address"`
	Original string `expr:"original" doc:"the address before rewriting, \"\" if it is the same" showq:"no"`
	Domain   string `expr:"domain" doc:"the domain in lower case"`
	NextHop  string `expr:"next_hop" doc:"where Postfix hands the recipient to"`
	Cause    string `expr:"cause" doc:"why the recipient waits, as --cause"`
	Status   string `expr:"status" doc:"the enhanced status code of the last attempt: .status == \"4.4.1\"" showq:"no"`
	Text     string `expr:"text" doc:"the reason of the last deferral, \"\" if there was no attempt"`
	Host     string `expr:"host" doc:"the remote server that answered" showq:"no"`
}

// FieldDoc describes one field of --where.
type FieldDoc struct {
	// Name is the field, or "recipients[].cause" for the field of a recipient.
	Name string
	// Type is text, number, true or false, time, duration, or a list of them.
	Type string
	Doc  string

	spoolOnly bool
}

// WhereFields lists the fields of --where, as the tags of Fields say them.
func WhereFields() []FieldDoc { return fieldDocs("", reflect.TypeFor[Fields]()) }

func fieldDocs(prefix string, t reflect.Type) []FieldDoc {
	var docs []FieldDoc
	for _, f := range reflect.VisibleFields(t) {
		d := FieldDoc{Name: prefix + f.Tag.Get("expr"), Type: typeName(f.Type), Doc: f.Tag.Get("doc"), spoolOnly: f.Tag.Get("showq") == "no"}
		docs = append(docs, d)
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Pointer {
			docs = append(docs, fieldDocs(d.Name+"[].", f.Type.Elem().Elem())...)
		}
	}
	return docs
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "number"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Pointer:
		return "list of objects"
	case t.Kind() == reflect.Slice:
		return "list of texts"
	}
	return "text"
}

// scratch holds what one goroutine needs to judge messages one after the other
// without allocating for each.
type scratch struct {
	fields     Fields
	recipients []RecipientFields
	headers    []Header
}

// fill sets the fields that the expression uses. Lists are costly with many
// recipients, and headers with any, so they are made only where they are named.
func (s *scratch) fill(msg *postfix.Message, at time.Time, uses map[string]bool, content *lazyHeaders) error {
	f := &s.fields
	f.Queue, f.ID, f.Sender = msg.Queue.String(), string(msg.ID), msg.Sender
	f.RecipientCount, f.Total, f.Done, f.Bounces = len(msg.Recipients), msg.TotalRecipients, msg.Done, len(msg.Bounces)
	f.Size = int(msg.Size)
	f.Arrival, f.Age = msg.Arrival, at.Sub(msg.Arrival)
	f.NextTry, f.Waiting = msg.NextTry, 0
	if !msg.NextTry.IsZero() {
		f.Waiting = max(msg.NextTry.Sub(at), 0)
	}
	f.Expires, f.ExpiresIn = msg.Expires, msg.Expires.Sub(at)
	f.ClientName, f.ClientAddress, f.Helo, f.Protocol = msg.Client.Name, msg.Client.Address, msg.Client.Helo, msg.Client.Protocol
	f.SASLUser, f.Filter, f.Redirect = msg.SASLUser, msg.Filter, msg.Redirect
	f.ForceExpire, f.FlushRequested, f.SMTPUTF8, f.Damage = msg.ForceExpire, msg.FlushRequested, msg.SMTPUTF8, msg.Damage
	if uses["sender_domain"] {
		f.SenderDomain = postfix.DomainOf(msg.Sender)
	}
	s.fillRecipients(msg, uses)
	return s.fillContent(msg, uses, content)
}

func (s *scratch) fillRecipients(msg *postfix.Message, uses map[string]bool) {
	f := &s.fields
	distinct := func(name string, list *[]string, value func(*postfix.Recipient) string) {
		*list = (*list)[:0]
		if !uses[name] {
			return
		}
		for i := range msg.Recipients {
			if v := value(&msg.Recipients[i]); v != "" && (len(*list) == 0 || v != (*list)[len(*list)-1]) {
				*list = append(*list, v)
			}
		}
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	distinct("domains", &f.Domains, func(r *postfix.Recipient) string { return r.Domain() })
	distinct("next_hops", &f.NextHops, func(r *postfix.Recipient) string { return r.NextHop })
	distinct("causes", &f.Causes, func(r *postfix.Recipient) string { return string(r.Cause) })
	distinct("texts", &f.Texts, func(r *postfix.Recipient) string { return r.Reason })
	distinct("hosts", &f.Hosts, func(r *postfix.Recipient) string { return r.Host })

	f.Recipients = f.Recipients[:0]
	if !uses["recipients"] {
		return
	}
	s.recipients = slices.Grow(s.recipients[:0], len(msg.Recipients))[:len(msg.Recipients)]
	for i := range msg.Recipients {
		r := &msg.Recipients[i]
		s.recipients[i] = RecipientFields{
			Address: r.Address, Original: r.Original, Domain: r.Domain(), NextHop: r.NextHop,
			Cause: string(r.Cause), Status: r.Status, Text: r.Reason, Host: r.Host,
		}
		f.Recipients = append(f.Recipients, &s.recipients[i])
	}
}

func (s *scratch) fillContent(msg *postfix.Message, uses map[string]bool, content *lazyHeaders) error {
	f := &s.fields
	f.MessageID, f.Headers = bareMessageID(msg.MessageID), f.Headers[:0]
	if !uses["headers"] && (!uses["message_id"] || f.MessageID != "") {
		return nil
	}
	headers, err := content.get(msg)
	if err != nil {
		return err
	}
	if f.MessageID == "" {
		f.MessageID = bareMessageID(messageIDOf(headers))
	}
	s.headers = append(s.headers[:0], headers...)
	for i := range s.headers {
		s.headers[i].Name = strings.ToLower(s.headers[i].Name)
		f.Headers = append(f.Headers, &s.headers[i])
	}
	return nil
}
