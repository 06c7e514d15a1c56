// Package helper is planted: the folder has a name, the package has none.
package helper // want "names: a name for a drawer"
