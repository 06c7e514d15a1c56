// Holdfast-lab is planted: the one program that may know the lab.
package main

import "holdfast/lab"

func main() { lab.Up() }
