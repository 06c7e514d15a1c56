// Package probe is planted: a dot hides whose names are used.
package probe

import . "os" // want "no dot imports: imported with a dot"

var _ = Rename
