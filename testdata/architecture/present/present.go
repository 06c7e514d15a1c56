// Package present is planted: a screen may have a network door and no hands.
package present

import (
	_ "net/http"

	"holdfast/durable" // want "screens decide nothing: imports durable"
)

var _ = durable.Replace
