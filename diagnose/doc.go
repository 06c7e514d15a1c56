// Package diagnose says why mail does not flow. Rules are pure functions of
// what was observed; each gives Findings with their evidence, what was ruled
// out, what is safe to do next and what would make it worse.
//
// Invariants: the same Snapshot and time give the same Findings in the same
// order; a rule never takes what could not be seen for empty or healthy; one
// bad destination is never read as a fault of this host, nor the other way
// round; a log line that anybody could have written never carries a verdict
// alone where something better is at hand.
//
// It never looks at anything itself, and never acts: next steps are data.
package diagnose
