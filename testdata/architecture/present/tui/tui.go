// This package is planted: go doc would not show its name.
package tui // want "package comments: begins otherwise"
