package present

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"holdfast/plan"
	"holdfast/record"
	"holdfast/record/audit"
)

// The names of the JSON records about what was recorded.
const (
	SchemaAuditEntry  = "holdfast.audit-entry/1"
	SchemaAuditReport = "holdfast.audit-report/1"
	SchemaPlanState   = "holdfast.plan-state/1"
	SchemaRecovery    = "holdfast.recovery/1"
	SchemaTick        = "holdfast.tick/1"
)

// AuditEntryRecord is one entry of the audit log.
type AuditEntryRecord struct {
	Envelope
	Seq  uint64      `json:"seq"`
	At   time.Time   `json:"at"`
	Kind record.Kind `json:"kind"`
	Ref  uint64      `json:"ref"`
	Hash string      `json:"hash"`
	Prev string      `json:"prev"`
	// Files is how many messages an intent names.
	Files int `json:"files"`
	// Detail is the body of the kind; docs/audit.md has the kinds.
	Detail any `json:"detail"`
}

// AuditEntryRecordOf makes the record of an entry.
func AuditEntryRecordOf(e *record.Entry) (*AuditEntryRecord, error) {
	r := &AuditEntryRecord{
		Envelope: Envelope{Schema: SchemaAuditEntry},
		Seq:      e.Seq, At: e.At, Kind: e.Kind, Ref: e.Ref, Hash: e.Hash, Prev: e.Prev, Files: len(e.Files),
	}
	decoder := json.NewDecoder(bytes.NewReader(e.Detail))
	decoder.UseNumber()
	if err := decoder.Decode(&r.Detail); err != nil {
		return nil, fmt.Errorf("read entry %d of the audit log: %w", e.Seq, err)
	}
	r.Detail = exact(r.Detail)
	return r, nil
}

// exact turns numbers into such as the Encoder writes in full: an inode number
// does not fit a float.
func exact(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, member := range v {
			v[k] = exact(member)
		}
	case []any:
		for i, element := range v {
			v[i] = exact(element)
		}
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
		return string(v) // too large for any of them
	}
	return v
}

// AuditReportRecord is what verifying an audit log found.
type AuditReportRecord struct {
	Envelope
	Whole          bool            `json:"whole"`
	Entries        uint64          `json:"entries"`
	First          *time.Time      `json:"first"`
	Last           *time.Time      `json:"last"`
	Head           string          `json:"head"`
	Bad            *audit.BadEntry `json:"bad"`
	Torn           int             `json:"torn"`
	Checkpoints    int             `json:"checkpoints"`
	Covered        uint64          `json:"covered"`
	BadCheckpoints []string        `json:"bad_checkpoints"`
	CutCheckpoints int             `json:"cut_checkpoints"`
	Key            string          `json:"key"`
	KeyFromLog     bool            `json:"key_from_log"`
}

// AuditReportRecordOf makes the record of a report.
func AuditReportRecordOf(r *audit.Report) *AuditReportRecord {
	out := &AuditReportRecord{
		Envelope: Envelope{Schema: SchemaAuditReport},
		Whole:    r.Whole(), Entries: r.Entries, Head: r.Head, Bad: r.Bad, Torn: r.Torn,
		Checkpoints: r.Checkpoints, Covered: r.Covered, BadCheckpoints: r.BadCheckpoints, CutCheckpoints: r.CutCheckpoints,
		Key: r.Key, KeyFromLog: r.FromLog,
	}
	out.First, out.Last = known(r.First), known(r.Last)
	return out
}

// known is nil for a time that is not known.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// PlanStateRecord is a plan and how far it has come.
type PlanStateRecord struct {
	Envelope
	Plan     string       `json:"plan"`
	Verb     plan.Verb    `json:"verb"`
	Count    int          `json:"count"`
	State    string       `json:"state"`
	Planned  *time.Time   `json:"planned"`
	Expires  *time.Time   `json:"expires"`
	Started  *time.Time   `json:"started"`
	Ended    *time.Time   `json:"ended"`
	By       string       `json:"by"`
	Approved []string     `json:"approved"`
	Reason   string       `json:"reason"`
	Ticket   string       `json:"ticket"`
	Undoes   string       `json:"undoes"`
	Counts   CountsRecord `json:"counts"`
	Left     int          `json:"left"`
}

// PlanStateRecordOf makes the record of a plan of the ledger.
func PlanStateRecordOf(r *record.Run, at time.Time) *PlanStateRecord {
	b := &r.Plan
	out := &PlanStateRecord{
		Envelope: Envelope{Schema: SchemaPlanState, Instance: b.Instance},
		Plan:     b.Plan, Verb: b.Verb, Count: b.Count, State: r.State(at),
		Planned: known(r.Planned), Expires: known(b.Expires), Started: known(r.Started), Ended: known(r.Ended),
		By: b.By.Name(), Reason: b.Reason, Ticket: b.Ticket, Undoes: b.Undoes, Left: r.Left(),
	}
	for _, who := range r.Approved {
		out.Approved = append(out.Approved, who.Name())
	}
	for state, n := range r.Counts {
		*out.Counts.of(state) += n
	}
	return out
}

// RecoveryRecord is what recover did.
type RecoveryRecord struct {
	Envelope
	// Settled are the entries of the intents.
	Settled []uint64     `json:"settled"`
	Counts  CountsRecord `json:"counts"`
	// Ended are plans whose end was recorded.
	Ended []string `json:"ended"`
}

// TickRecord is what a tick did.
type TickRecord struct {
	Envelope
	Duties []DutyRecord `json:"duties"`
	// Waiting is how much is still to come, Next the first of it.
	Waiting int        `json:"waiting"`
	Next    *time.Time `json:"next"`
}

// DutyRecord is something that was due.
type DutyRecord struct {
	Entry  uint64    `json:"entry"`
	What   string    `json:"what"`
	Object string    `json:"object"`
	When   time.Time `json:"when"`
	Done   bool      `json:"done"`
	Text   string    `json:"text"`
}

// TickRecordOf makes the record of a tick.
func TickRecordOf(duties []DutyRecord, waiting int, next time.Time) *TickRecord {
	return &TickRecord{Envelope: Envelope{Schema: SchemaTick}, Duties: duties, Waiting: waiting, Next: known(next)}
}
