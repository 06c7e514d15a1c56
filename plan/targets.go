package plan

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// EncodeTargets writes targets as they are kept beside a plan, one JSON object
// a line, and returns the digest that names the file.
func EncodeTargets(w io.Writer, targets []Target) (digest string, err error) {
	sum := sha256.New()
	out := bufio.NewWriter(io.MultiWriter(w, sum))
	enc := json.NewEncoder(out)
	for i := range targets {
		if err := enc.Encode(&targets[i]); err != nil {
			return "", fmt.Errorf("write the targets of a plan: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return "", fmt.Errorf("write the targets of a plan: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Seal puts the number and the digest of the targets into the plan. What is
// changed in the plan afterwards makes it another one.
func (p *Plan) Seal(targets []Target) error {
	digest, err := EncodeTargets(io.Discard, targets)
	if err != nil {
		return err
	}
	p.Schema, p.Count, p.Targets = PlanSchema, len(targets), digest
	return nil
}

// Errors of plans that were kept.
var (
	errOtherTargets = errors.New("the targets are not those that the plan was sealed with")
	errOtherPlan    = errors.New("the plan is not the one that the name stands for")
)

// Check says whether these are the targets that the plan was sealed with.
func (p *Plan) Check(targets []Target) error {
	digest, err := EncodeTargets(io.Discard, targets)
	if err == nil && (digest != p.Targets || len(targets) != p.Count) {
		err = errOtherTargets
	}
	return err
}

// Decode reads a plan that was kept under its ID.
func Decode(id string, text []byte) (*Plan, error) {
	var p Plan
	dec := json.NewDecoder(bytes.NewReader(text))
	// A field that is not known here would not be in the ID either.
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("read plan %q: %w", id, err)
	}
	if p.Schema != PlanSchema || p.ID() != id {
		return nil, fmt.Errorf("read plan %q: %w", id, errOtherPlan)
	}
	return &p, nil
}

// Encode is what a plan is kept as: its ID is the digest of these bytes.
func (p *Plan) Encode() ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write a plan: %w", err)
	}
	return b, nil
}

// DecodeTargets reads what EncodeTargets wrote, and checks it against the plan.
func (p *Plan) DecodeTargets(r io.Reader) ([]Target, error) {
	sum := sha256.New()
	dec := json.NewDecoder(io.TeeReader(r, sum))
	dec.DisallowUnknownFields()
	var targets []Target
	for {
		var t Target
		err := dec.Decode(&t)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the targets of a plan: %w", err)
		}
		if len(targets) == p.Count {
			return nil, errOtherTargets
		}
		targets = append(targets, t)
	}
	if len(targets) != p.Count || hex.EncodeToString(sum.Sum(nil)) != p.Targets {
		return nil, errOtherTargets
	}
	return targets, nil
}
