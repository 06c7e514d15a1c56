package hand

import (
	"bytes"
	"context"

	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/record"
	"holdfast/record/vault"
)

// purge removes copies for good, those that the intent names.
func (s *server) purge(f *frame) error {
	seq := f.number()
	items := f.texts()
	if err := f.done(); err != nil {
		return err
	}
	in, err := s.open(seq)
	if err != nil {
		return err
	}
	if in.verb != plan.Purge {
		return refused("a plan to %s purges nothing", in.verb)
	}
	if len(items) == 0 {
		return refused("no item is named")
	}
	for _, item := range items {
		if !itemName.MatchString(item) || !bytes.Contains(in.entry.Detail, []byte(`"item":"`+item+`"`)) {
			return refused("intent %d does not name item %q", seq, item)
		}
	}
	return s.vault.Purge(items)
}

// itemStates looks at items. It reads bytes and compares digests, and hands
// nothing over.
func (s *server) itemStates(f *frame) (reply frame, err error) {
	items := f.items()
	if err := f.done(); err != nil {
		return reply, err
	}
	reply.putInt(int64(len(items)))
	for _, item := range items {
		if !itemName.MatchString(item.Name) {
			return frame{}, refused("%q is no item", item.Name)
		}
		state, err := s.vault.Item(item.Name, item.Sum)
		if err != nil {
			return frame{}, err
		}
		reply.putText(string(state))
	}
	return reply, nil
}

// verifyVault compares all packs with what the caller found in the audit log.
func (s *server) verifyVault(f *frame) (reply frame, err error) {
	kept := make([]record.KeptBody, f.count(3))
	for i := range kept {
		kept[i] = record.KeptBody{Pack: f.text(), Sum: f.text(), Items: f.items()}
	}
	purged := make(map[string]bool)
	for _, item := range f.texts() {
		purged[item] = true
	}
	if err := f.done(); err != nil {
		return reply, err
	}
	checked, err := s.vault.Verify(kept, purged)
	if err != nil {
		return reply, err
	}
	reply.putInt(int64(len(checked)))
	for _, c := range checked {
		reply.putText(c.Pack)
		reply.putText(string(c.State))
		reply.putText(c.Why)
	}
	return reply, nil
}

func (f *frame) putTexts(list []string) {
	f.putInt(int64(len(list)))
	for _, text := range list {
		f.putText(text)
	}
}

func (f *frame) texts() []string {
	list := make([]string, f.count(1))
	for i := range list {
		list[i] = f.text()
	}
	return list
}

func (f *frame) putItems(items []record.Item) {
	f.putInt(int64(len(items)))
	for _, item := range items {
		f.putText(item.Name)
		f.putText(string(item.ID))
		f.putText(item.Sum)
		f.putInt(item.Size)
	}
}

func (f *frame) items() []record.Item {
	items := make([]record.Item, f.count(4))
	for i := range items {
		items[i] = record.Item{Name: f.text(), ID: postfix.QueueID(f.text()), Sum: f.text(), Size: f.int()}
	}
	return items
}

// Purge removes items of an intent from the vault for good.
func (c *Client) Purge(ctx context.Context, intent uint64, items []string) error {
	f := requestOf(askPurge)
	f.putNumber(intent)
	f.putTexts(items)
	return c.plain(ctx, f)
}

// Items says what is in the vault of items, which are given as the audit log
// has them.
func (c *Client) Items(ctx context.Context, items []record.Item) ([]vault.State, error) {
	f := requestOf(askItems)
	f.putItems(items)
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, f)
	if err != nil {
		return nil, err
	}
	states := make([]vault.State, reply.count(1))
	for i := range states {
		states[i] = vault.State(reply.text())
	}
	if err := reply.done(); err != nil {
		return nil, err
	}
	if len(states) != len(items) {
		return nil, ErrFrame
	}
	return states, nil
}

// VerifyVault compares every pack with what the audit log says was kept, and
// which items were purged.
func (c *Client) VerifyVault(ctx context.Context, kept []record.KeptBody, purged []string) ([]vault.Checked, error) {
	f := requestOf(askVerify)
	f.putInt(int64(len(kept)))
	for i := range kept {
		f.putText(kept[i].Pack)
		f.putText(kept[i].Sum)
		f.putItems(kept[i].Items)
	}
	f.putTexts(purged)
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, err := c.ask(ctx, f)
	if err != nil {
		return nil, err
	}
	checked := make([]vault.Checked, reply.count(3))
	for i := range checked {
		checked[i] = vault.Checked{Pack: reply.text(), State: vault.State(reply.text()), Why: reply.text()}
	}
	return checked, reply.done()
}
