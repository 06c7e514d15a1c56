// Package stray is planted: code at the root.
package stray // want "order: the root of the repository"
