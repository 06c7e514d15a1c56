package present

import (
	"time"

	"holdfast/record"
)

// The names of the JSON records about the vault.
const (
	SchemaCopy      = "holdfast.copy/1"
	SchemaVaultPack = "holdfast.vault-pack/1"
)

// CopyRecord is one copy in the vault, as the audit log tells of it.
type CopyRecord struct {
	Envelope
	Item   string    `json:"item"`
	ID     string    `json:"id"`
	At     time.Time `json:"at"`
	Plan   string    `json:"plan"`
	Verb   string    `json:"verb"`
	Reason Text      `json:"reason"`
	By     Text      `json:"by"`
	Sender Text      `json:"sender"`
	Size   int64     `json:"size"`
	// State is "last", "queued", "restored", "requeued" or "purged".
	State     string `json:"state"`
	Restored  string `json:"restored,omitempty"`
	LegalHold bool   `json:"legal_hold"`
	Sum       string `json:"sha256"`
}

// CopyRecordOf makes the record of a copy, with the plan that it is of.
func CopyRecordOf(c *record.Copy, run *record.Run) *CopyRecord {
	r := &CopyRecord{
		Envelope: Envelope{Schema: SchemaCopy, Instance: c.Target.Instance},
		Item:     c.Name, ID: string(c.ID), At: c.At, Plan: c.Plan, Sender: Hostile(c.Target.Sender), Size: c.Size,
		Restored: string(c.Restored), LegalHold: c.Legal, Sum: c.Sum, State: CopyState(c),
		Reason: Hostile(""), By: Hostile(""),
	}
	if run != nil {
		r.Verb, r.Reason, r.By = string(run.Plan.Verb), Hostile(run.Plan.Reason), Hostile(run.Plan.By.Name())
	}
	return r
}

// CopyState is one word for what a copy is now: "last" where there is no other
// of its message by our doing, "queued" where the message stayed in the queue.
func CopyState(c *record.Copy) string {
	switch {
	case c.Purged:
		return "purged"
	case c.Restored != "":
		return "restored"
	case c.Requeued:
		return "requeued"
	case c.Removed:
		return "last"
	}
	return "queued"
}

// VaultPackRecord is one file of the vault as a check found it.
type VaultPackRecord struct {
	Envelope
	Pack  string `json:"pack"`
	State string `json:"state"` // good, damaged, missing, planted, purged
	Why   Text   `json:"why"`
}
