package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"holdfast/act/hand"
	"holdfast/observe/spool"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/vault"
)

// Checked is one pack of the vault as a check found it.
type Checked = vault.Checked

// Viewing is why somebody looks at the content of mail.
type Viewing struct {
	Reason, Ticket string
}

// VerifyVault compares every pack of the vault with the audit log.
func (o *Operator) VerifyVault(ctx context.Context) ([]Checked, error) {
	client, err := o.begin(ctx, "verify the vault")
	if err != nil {
		return nil, err
	}
	var kept []record.KeptBody
	for e, err := range o.Entries(ctx) {
		if err != nil {
			return nil, err
		}
		if e.Kind != record.Kept {
			continue
		}
		var body record.KeptBody
		if err := json.Unmarshal(e.Detail, &body); err != nil {
			return nil, fmt.Errorf("read entry %d of the audit log: %w", e.Seq, err)
		}
		kept = append(kept, body)
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, err
	}
	var purged []string
	for name, c := range ledger.Items {
		if c.Purged {
			purged = append(purged, name)
		}
	}
	return client.VerifyVault(ctx, kept, purged)
}

// begin takes the lock, under which alone something is added to the record.
func (o *Operator) begin(ctx context.Context, op string) (*hand.Client, error) {
	if o.client == nil {
		return nil, needsRoot(op)
	}
	return o.client, o.client.Begin(ctx)
}

// Viewed records that content of messages is about to be shown, before it is.
// Where the policy does not allow it, or it cannot be recorded, it must not be.
func (o *Operator) Viewed(ctx context.Context, ids []postfix.QueueID, why Viewing) error {
	client, err := o.beginViewing(ctx, why)
	if err != nil {
		return err
	}
	for _, id := range ids {
		body := record.InspectBody{By: o.who, ID: id, What: "body", Reason: why.Reason, Ticket: why.Ticket}
		if _, err := client.Append(ctx, record.Looked, 0, nil, body); err != nil {
			return err
		}
	}
	return nil
}

func (o *Operator) beginViewing(ctx context.Context, why Viewing) (*hand.Client, error) {
	no := func(hint, format string, args ...any) error {
		return &postfix.Error{Kind: postfix.Refused, Op: "look at the content of mail", Err: fmt.Errorf(format, args...), Hint: hint}
	}
	if o.policy.May != nil && !o.policy.May("inspect", o.who.Name()) {
		return nil, no("holdfast config explain shows who may", "the policy does not let %s", o.who.Name())
	}
	if o.policy.ViewTicket && why.Ticket == "" {
		return nil, no("--ticket NUMBER", "the policy wants a ticket for it")
	}
	if why.Reason == "" {
		return nil, &postfix.Error{
			Kind: postfix.NeedsConfirmation, Op: "look at the content of mail", Err: errors.New("no reason was given, and each look is recorded with one"),
			Hint: "say why with --reason",
		}
	}
	return o.begin(ctx, "record a look at content")
}

// Copy finds a copy in the vault by its name, or by the queue ID of the message
// where there is only one copy of it.
func findCopy(ledger *record.Ledger, ref string) (*record.Copy, error) {
	if c := ledger.Items[ref]; c != nil {
		return c, nil
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(ledger.Items)) {
		if string(ledger.Items[name].ID) == ref {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return nil, &postfix.Error{Kind: postfix.Failed, Op: "find in the vault", Object: ref, Err: vault.ErrNoItem, Hint: "holdfast vault list names what is there"}
	case 1:
		return ledger.Items[names[0]], nil
	}
	return nil, &postfix.Error{Kind: postfix.Usage, Op: "find in the vault", Object: ref, Err: fmt.Errorf("there are %d copies of messages with this ID", len(names)), Hint: "name one: " + fmt.Sprint(names)}
}

// ShowCopy reads a copy in the vault. That somebody did is on record before a
// byte is read.
func (o *Operator) ShowCopy(ctx context.Context, ref string, want spool.Want, why Viewing) (*Detail, error) {
	in, err := o.only()
	if err != nil {
		return nil, err
	}
	client, err := o.beginViewing(ctx, why)
	if err != nil {
		return nil, err
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, err
	}
	c, err := findCopy(ledger, ref)
	if err != nil {
		return nil, err
	}
	e, err := client.Append(ctx, record.Looked, 0, nil, record.InspectBody{By: o.who, ID: c.ID, Item: c.Name, What: "vault", Reason: why.Reason, Ticket: why.Ticket})
	if err != nil {
		return nil, err
	}
	file, err := client.Reveal(ctx, e.Seq, c.Name)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	detail, err := in.reader.InspectCopy(file, c.ID, want)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	return &Detail{Detail: detail, Instance: in.Instance}, nil
}

// LegalHold keeps copies from being purged, or lets them be again. It returns
// the names of the copies.
func (o *Operator) LegalHold(ctx context.Context, refs []string, on bool, why Viewing) ([]string, error) {
	if why.Reason == "" {
		return nil, &postfix.Error{Kind: postfix.NeedsConfirmation, Op: "legal hold", Err: errors.New("it wants a reason; nothing was changed"), Hint: "say why with --reason"}
	}
	client, err := o.begin(ctx, "put copies under legal hold")
	if err != nil {
		return nil, err
	}
	ledger, err := o.Ledger(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, ref := range refs {
		c, err := findCopy(ledger, ref)
		if err != nil {
			return nil, err
		}
		names = append(names, c.Name)
	}
	_, err = client.Append(ctx, record.LegalHold, 0, nil, record.LegalBody{By: o.who, Items: names, On: on, Reason: why.Reason, Ticket: why.Ticket})
	return names, err
}
