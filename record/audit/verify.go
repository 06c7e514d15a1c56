package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"

	"golang.org/x/mod/sumdb/note"

	"holdfast/record"
)

// Read returns the entries of a log in their order, decoded. The last pair may
// carry an error: a *BadEntry, which is ErrCut where the end is not whole (as
// it is while another process writes) and ErrDamaged where it is anything else;
// or one of reading. What was returned before it is good.
func Read(r io.Reader) iter.Seq2[record.Entry, error] {
	return func(yield func(record.Entry, error) bool) {
		w := newWalk(r, record.ParseLine, record.Entry{})
		for w.next() {
			// The detail lies in a buffer that the next line overwrites.
			e := w.entry
			e.Detail = append(json.RawMessage(nil), e.Detail...)
			if !yield(e, nil) {
				return
			}
		}
		if err := w.failure(); err != nil {
			yield(record.Entry{}, err)
		}
	}
}

// Report is what verifying a log found.
type Report struct {
	Entries uint64    `json:"entries"`
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	// Head is the hash of the last good entry.
	Head string `json:"head,omitempty"`
	// Bad is the first entry that is not what was written, nil where none is.
	Bad *BadEntry `json:"bad,omitempty"`
	// Torn counts the lines that a crash cut, each of which is accounted for.
	Torn int `json:"torn,omitempty"`
	// Checkpoints are those that fit the log, Covered the number of entries
	// that the furthest of them covers: who holds a copy of it elsewhere can
	// prove these.
	Checkpoints int    `json:"checkpoints"`
	Covered     uint64 `json:"covered"`
	// BadCheckpoints says of checkpoints why they prove nothing: their
	// signature or their text is not good.
	BadCheckpoints []string `json:"bad_checkpoints,omitempty"`
	// CutCheckpoints are not written to their end: by a crash, or shortened.
	CutCheckpoints int `json:"cut_checkpoints,omitempty"`
	// Key is the key by which checkpoints were verified. FromLog is set where
	// it was taken from the log itself: whoever wrote the log anew wrote that
	// anew, too.
	Key     string `json:"key,omitempty"`
	FromLog bool   `json:"key_from_log,omitempty"`
}

// Whole reports whether everything fits: every entry and every checkpoint.
func (r *Report) Whole() bool { return r.Bad == nil && len(r.BadCheckpoints) == 0 && r.Entries > 0 }

// Verify checks a log from its first line to its last, and against signed
// checkpoints: those that lie beside it, and any others that the caller adds to
// them. verifierKey is the key that somebody kept elsewhere, "" for that of the
// log itself. The error is one of reading or of the key; what is wrong with the
// log is in the Report.
func Verify(r io.Reader, checkpoints []byte, verifierKey string) (Report, error) {
	v := verification{report: Report{Key: verifierKey, FromLog: verifierKey == ""}, text: checkpoints}
	if verifierKey != "" {
		if err := v.take(verifierKey); err != nil {
			return Report{}, fmt.Errorf("verify the audit log: %w", err)
		}
	}
	w := newWalk(r, record.ParseLine, record.Entry{})
	for w.next() {
		v.entry(w)
		if v.report.Bad != nil {
			break
		}
	}
	v.report.Torn = w.torn
	if w.err != nil {
		return Report{}, fmt.Errorf("verify the audit log: %w", w.err)
	}
	if v.report.Bad == nil {
		v.report.Bad = w.bad
	}
	v.end(w.offset)
	return v.report, nil
}

// verification is a Report in the making.
type verification struct {
	report Report
	text   []byte
	known  split
	tree   tree
}

// take reads the checkpoints by a key.
func (v *verification) take(key string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return fmt.Errorf("take the key of checkpoints: %w", err)
	}
	v.known = splitCheckpoints(v.text, verifier)
	v.report.BadCheckpoints, v.report.CutCheckpoints = v.known.bad, v.known.cut
	return nil
}

// takeFrom takes the key that the first entry names.
func (v *verification) takeFrom(w *walk) *BadEntry {
	var body record.BeginBody
	err := json.Unmarshal(w.entry.Detail, &body)
	if err == nil {
		err = v.take(body.Key)
	}
	if err != nil {
		return &BadEntry{Seq: w.entry.Seq, Line: w.line, Offset: w.entry.Offset, Why: err.Error()}
	}
	v.report.Key = body.Key
	return nil
}

// entry takes one good entry into account.
func (v *verification) entry(w *walk) {
	e := &w.entry
	v.report.Entries, v.report.Last, v.report.Head = e.Seq, e.At, e.Hash
	if e.Seq == 1 {
		v.report.First = e.At
	}
	if e.Kind == record.Begin && v.report.FromLog {
		if v.report.Bad = v.takeFrom(w); v.report.Bad != nil {
			return
		}
	}
	v.tree.add(w.text)
	for _, c := range v.known.good {
		if c.entries != e.Seq {
			continue
		}
		if c.root != v.tree.root() {
			v.report.Bad = &BadEntry{Seq: v.report.Covered + 1, Offset: e.Offset, Why: fmt.Sprintf(
				"entries %d to %d are not those that were signed: the log was written anew from one of them on",
				v.report.Covered+1, c.entries)}
			return
		}
		v.report.Checkpoints, v.report.Covered = v.report.Checkpoints+1, c.entries
	}
}

// end compares what was read with what was signed.
func (v *verification) end(offset int64) {
	if v.report.Bad != nil {
		return
	}
	var most uint64
	for _, c := range v.known.good {
		most = max(most, c.entries)
	}
	if most > v.report.Entries {
		v.report.Bad = &BadEntry{Seq: v.report.Entries + 1, Offset: offset, Why: fmt.Sprintf(
			"the log ends here, and %d entries were signed", most)}
	}
}
