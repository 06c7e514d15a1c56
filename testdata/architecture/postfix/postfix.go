// Package postfix is planted: the vocabulary reaches up the workflow.
package postfix

import (
	"holdfast/plan" // want "order: comes after it in the workflow"
)

var _ plan.Plan
