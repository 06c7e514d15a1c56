// Package util is planted: a drawer.
package util // want "names: a name for a drawer"
