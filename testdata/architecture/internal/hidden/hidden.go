// Package hidden is planted: internal at the root.
package hidden // want "names: internal at the root" // want "order: folder"
