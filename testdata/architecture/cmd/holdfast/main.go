// Holdfast is planted: the product must not carry fault injectors, and its
// main decides nothing.
package main

import (
	"holdfast/act"       // want "screens decide nothing: go through operate"
	"holdfast/lab/world" // want "lab stays home: never ship to a mail server"
	"holdfast/operate"
)

func main() { operate.Run(act.Delete, world.Start) }
