// Package world is planted: it may know the lab, for it is the lab.
package world
