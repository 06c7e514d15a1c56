// Package plan is planted: it uses what is before it, which is right, and the
// workshop, which is not.
package plan

import (
	"holdfast/bench"   // want "order: is no part of it"
	"holdfast/nowhere" // want "order: no place in the workflow"
	"holdfast/observe"
	"holdfast/postfix"
)

// Plan is planted.
type Plan struct {
	a bench.A
	b nowhere.B
	c observe.C
	d postfix.D
}
