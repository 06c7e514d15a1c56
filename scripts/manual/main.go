// Command manual writes the page about holdfast.toml from package config.
package main

import (
	"fmt"
	"os"

	"holdfast/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: manual FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], []byte(config.Manual()), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
