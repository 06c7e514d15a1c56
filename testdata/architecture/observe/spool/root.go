package spool

import "os"

func below(dir string) {
	root, _ := os.OpenRoot(dir)
	_, _ = root.Open("x")
	_, _ = root.Create("x") // want "state files: calls Create in a file that opens an os.Root"
}
