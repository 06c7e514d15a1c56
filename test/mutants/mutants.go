package main

// mutant is one mistake.
type mutant struct {
	name string
	// file is where, below the root of the tree; old, which stands there once,
	// becomes new.
	file, old, new string
	// tests are arguments of go test: what should notice.
	tests []string
}

func mutants() []mutant {
	return []mutant{
		{
			name: "no-fsync-of-an-appended-file", file: "durable/append.go",
			old: "return a.file.Sync()", new: "return nil",
			tests: []string{"./durable"},
		},
		{
			name: "no-fsync-of-a-created-file", file: "durable/create.go",
			old: "err = c.file.Sync()", new: "err = nil",
			tests: []string{"./durable"},
		},
		{
			name: "no-fsync-of-the-directory", file: "durable/create.go",
			old: "err := c.dir.Sync(); err != nil", new: "err := error(nil); err != nil",
			tests: []string{"./durable"},
		},
	}
}
