package holdfast_test

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// mayStartProcesses are the folders and files that may import os/exec at all.
// Every other process would be one that no audit log knows of.
var mayStartProcesses = []string{
	"act/internal/postcmd", // what changes Postfix: fixed argv, no shell
	"act/hand/client.go",   // this program again, as the hand
	"act/hand/keeper.go",   // this program again, as the keeper, and as the keeper's ticks
	"observe",              // read-only programs, held to readOnlyPrograms
	"daemon/alert.go",      // the operator's own alert commands
	"lab",
	"cmd/holdfast-lab",
}

// mayWriteFiles are the folders that may change a file system. What else looks
// like state goes through durable, which alone knows the fsyncs it takes.
var mayWriteFiles = []string{
	"durable", "lab", "cmd/holdfast-lab",
	"observe/opener/scratch.go", // an unnamed file, to learn whether the spool takes one
	"act/respool.go",            // a message from the vault, back into hold: Postfix has no program for it
}

// maySpeakHTTP are the folders with a door to the network or to a browser.
var maySpeakHTTP = []string{"fleet", "present", "daemon", "lab"}

// readOnlyPrograms is what observe may run, and the options it may give: each
// program here has other options that change the mail system or the journal
// (postconf -e, postmulti -e, postmap without -q, journalctl --vacuum-size).
var readOnlyPrograms = map[string]struct {
	may  []string // options that only read
	must string   // without this option the program writes
}{
	"journalctl": {may: []string{
		"-D", "--directory", "-u", "--unit", "-t", "--identifier", "-o", "--output", "-n", "--lines",
		"-f", "--follow", "-q", "--quiet", "--no-pager", "-S", "--since", "-U", "--until",
		"--after-cursor", "--show-cursor", "--utc", "-m", "--merge", "--output-fields",
	}},
	"postconf":  {may: []string{"-c", "-C", "-d", "-f", "-F", "-h", "-H", "-l", "-m", "-M", "-n", "-o", "-p", "-P", "-x"}},
	"postmap":   {may: []string{"-c", "-q", "-s"}, must: "-q"},
	"postmulti": {may: []string{"-a", "-g", "-i", "-l"}, must: "-l"},
	"postqueue": {may: []string{"-c", "-j", "-p"}},
	"exe":       {must: "__opener"}, // this program again, as the opener of observe/opener
	"systemctl": {may: []string{"--no-pager", "-p", "--property", "--value"}, must: "show"},
}

// writers are the calls that change a file system, by import path.
var writers = map[string][]string{
	"os": {
		"Chmod", "Chown", "Chtimes", "CopyFS", "Create", "CreateTemp", "Lchown", "Link", "Mkdir",
		"MkdirAll", "MkdirTemp", "Remove", "RemoveAll", "Rename", "Symlink", "Truncate", "WriteFile",
	},
	"syscall":                       unixWriters,
	"golang.org/x/sys/unix":         unixWriters,
	"io/ioutil":                     {"WriteFile", "TempDir", "TempFile"},
	"github.com/google/renameio/v2": {"WriteFile", "Symlink", "TempFile", "NewPendingFile"},
}

var unixWriters = []string{
	"Chmod", "Chown", "Creat", "Fallocate", "Fchmod", "Fchmodat", "Fchown", "Fchownat", "Ftruncate",
	"Futimes", "Futimesat", "Lchown", "Link", "Linkat", "Lsetxattr", "Mkdir", "Mkdirat", "Mkfifo",
	"Mkfifoat", "Mknod", "Mknodat", "Mount", "Removexattr", "Rename", "Renameat", "Renameat2", "Rmdir",
	"Setxattr", "Symlink", "Symlinkat", "Truncate", "Unlink", "Unlinkat", "Unmount", "Utime", "Utimes",
	"UtimesNano", "UtimesNanoAt",
}

// rootWriters are methods of os.Root, which is a fine way to read below a
// folder and a way to write behind the fence. Without types they are told by
// their names, in files that open a root.
var rootWriters = []string{
	"Chmod", "Chown", "Chtimes", "Create", "Lchown", "Link", "Mkdir", "MkdirAll", "OpenFile", "Remove",
	"RemoveAll", "Rename", "Symlink", "WriteFile",
}

// writeFlags are the open(2) flags that a reader has no use for.
var writeFlags = []string{
	"O_APPEND", "O_CREAT", "O_CREATE", "O_EXCL", "O_RDWR", "O_TMPFILE", "O_TRUNC", "O_WRONLY",
}

// notState are files that hold nothing: the terminal is where questions are asked.
var notState = []string{"/dev/tty", "/dev/null"}

// starters start a process without os/exec.
var starters = map[string][]string{
	"os":                    {"StartProcess"},
	"syscall":               {"Exec", "ForkExec", "StartProcess"},
	"golang.org/x/sys/unix": {"Exec"},
}

// product calls visit for each file that a fence applies to.
func (t *tree) product(visit func(*source)) {
	for _, s := range t.files {
		if !s.isTest() && !withinAny(s.dir, workshop) {
			visit(s)
		}
	}
}

// allowed says whether a file lies behind one of the named folders or is one
// of the named files.
func allowed(s *source, places []string) bool {
	return withinAny(s.dir, places) || slices.Contains(places, s.path)
}

// qualified returns the import path and the name of a selector on a package,
// such as "os", "Rename".
func (s *source) qualified(n ast.Node) (pkg, name string) {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return s.imports[x.Name], sel.Sel.Name
}

// checkProcesses fences the ways to start a process.
func checkProcesses(t *tree) []violation {
	var found []violation
	t.product(func(s *source) {
		if allowed(s, mayStartProcesses) {
			return
		}
		for _, spec := range s.file.Imports {
			if importPath(spec) == "os/exec" {
				found = append(found, t.at(s, spec,
					"%s imports os/exec; a command that changes Postfix runs in act/internal/postcmd, where its "+
						"intent is on record, and one that reads runs in observe", s.dir))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if pkg, name := s.qualified(n); slices.Contains(starters[pkg], name) {
				found = append(found, t.at(s, n,
					"%s starts a process by %s.%s; do it in act/internal/postcmd or observe, "+
						"which are the places that are watched", s.dir, path.Base(pkg), name))
			}
			return true
		})
	})
	return found
}

// checkReadOnlyPrograms holds observe to its list: the program is written out
// where it is started, and so are its options.
func checkReadOnlyPrograms(t *tree) []violation {
	var found []violation
	t.product(func(s *source) {
		if !within(s.dir, "observe") {
			return
		}
		seen := map[ast.Node]bool{} // selectors that their parent has accounted for
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.StarExpr:
				seen[n.X] = true // *exec.Cmd, *exec.ExitError: a type, which starts nothing
			case *ast.CallExpr:
				pkg, name := s.qualified(n.Fun)
				switch {
				case pkg == "os/exec" && name == "CommandContext" && len(n.Args) > 1:
					seen[n.Fun] = true
					found = append(found, t.checkProgram(s, n, n.Args[1], n.Args[2:])...)
				case pkg == "os/exec" && name == "Command" && len(n.Args) > 0:
					seen[n.Fun] = true
					found = append(found, t.checkProgram(s, n, n.Args[0], n.Args[1:])...)
				}
			case *ast.SelectorExpr:
				if pkg, name := s.qualified(n); pkg == "os/exec" && !seen[n] && !slices.Contains(startsNothing, name) {
					found = append(found, t.at(s, n,
						"observe uses exec.%s; start programs by exec.CommandContext with the name written out, "+
							"so that this test can read what is run", name))
				}
			}
			return true
		})
	})
	return found
}

// startsNothing is what of os/exec runs no program.
var startsNothing = []string{"Error", "ExitError", "ErrNotFound", "ErrWaitDelay", "ErrDot", "LookPath"}

// checkProgram looks at one command line of observe.
func (t *tree) checkProgram(s *source, call *ast.CallExpr, program ast.Expr, args []ast.Expr) []violation {
	name, ok := s.programName(program)
	if !ok {
		return []violation{t.at(s, call,
			"observe starts a program whose name is not written out in the call; write the name as a string, "+
				"or as the last element of filepath.Join, so that a reader sees that it only reads")}
	}
	rules, known := readOnlyPrograms[name]
	if !known {
		return []violation{t.at(s, call,
			"observe runs %q, which is not on the list of read-only programs; read natively, or add it to "+
				"readOnlyPrograms with the options that change nothing", name)}
	}
	var found []violation
	must := rules.must == ""
	for _, arg := range args {
		ast.Inspect(arg, func(n ast.Node) bool {
			word, ok := stringLiteral(n)
			if !ok {
				return true
			}
			option, _, _ := strings.Cut(word, "=")
			must = must || option == rules.must
			if strings.HasPrefix(option, "-") && option != "--" && option != "-" && !slices.Contains(rules.may, option) {
				found = append(found, t.at(s, n,
					"observe gives %s the option %s, which is not known to only read; change nothing here, "+
						"or add the option to readOnlyPrograms with a reason", name, option))
			}
			return true
		})
	}
	if !must {
		found = append(found, t.at(s, call,
			"observe runs %s without %s, and then it writes; say %s in the call", name, rules.must, rules.must))
	}
	return found
}

// programName finds the program in "postconf", in a constant of the same file,
// or in filepath.Join(dir, "postconf").
func (s *source) programName(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		word, ok := stringLiteral(e)
		return path.Base(word), ok
	case *ast.Ident:
		return s.constant(e.Name)
	case *ast.CallExpr:
		pkg, name := s.qualified(e.Fun)
		if (pkg == "path/filepath" || pkg == "path") && name == "Join" && len(e.Args) > 0 {
			return s.programName(e.Args[len(e.Args)-1])
		}
	}
	return "", false
}

// constant returns the string constant of that name declared at the top of the file.
func (s *source) constant(name string) (string, bool) {
	for _, decl := range s.file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			value, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			for i, ident := range value.Names {
				if ident.Name == name && i < len(value.Values) {
					word, ok := stringLiteral(value.Values[i])
					return path.Base(word), ok
				}
			}
		}
	}
	return "", false
}

func stringLiteral(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	word, err := strconv.Unquote(lit.Value)
	return word, err == nil
}

// checkStateFiles fences the calls that change a file system.
func checkStateFiles(t *tree) []violation {
	var found []violation
	t.product(func(s *source) {
		if allowed(s, mayWriteFiles) {
			return
		}
		opensRoot := s.mentions("os", "OpenRoot", "Root")
		ast.Inspect(s.file, func(n ast.Node) bool {
			if s.opensNothing(n) {
				return false
			}
			if v, ok := t.checkWrite(s, n, opensRoot); ok {
				found = append(found, v)
				return false
			}
			return true
		})
	})
	return found
}

// checkWrite says whether a node writes.
func (t *tree) checkWrite(s *source, n ast.Node, opensRoot bool) (violation, bool) {
	const instead = "state is written by durable alone, which syncs file and directory in the right order: " +
		"call it, or add a named exception to mayWriteFiles"
	pkg, name := s.qualified(n)
	switch {
	case slices.Contains(writers[pkg], name):
		return t.at(s, n, "%s calls %s.%s; %s", s.dir, path.Base(pkg), name, instead), true
	case pkg != "" && slices.Contains(writeFlags, name):
		return t.at(s, n, "%s opens with %s; %s", s.dir, name, instead), true
	}
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return violation{}, false
	}
	if pkg, name := s.qualified(call.Fun); pkg == "os" && name == "OpenFile" && len(call.Args) > 1 {
		if lit, ok := call.Args[1].(*ast.BasicLit); ok && lit.Value != "0" {
			return t.at(s, n, "%s opens with the bare flags %s; write them by name, so that one can see "+
				"that the file is only read", s.dir, lit.Value), true
		}
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if opensRoot && ok && slices.Contains(rootWriters, sel.Sel.Name) {
		if pkg, _ := s.qualified(sel); pkg == "" {
			return t.at(s, n, "%s calls %s in a file that opens an os.Root; %s", s.dir, sel.Sel.Name, instead), true
		}
	}
	return violation{}, false
}

// opensNothing says whether a node opens a file that is not state.
func (s *source) opensNothing(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return false
	}
	if pkg, name := s.qualified(call.Fun); pkg != "os" || name != "OpenFile" {
		return false
	}
	name, ok := stringLiteral(call.Args[0])
	return ok && slices.Contains(notState, name)
}

// mentions says whether the file uses one of the names of a package.
func (s *source) mentions(importPath string, names ...string) bool {
	seen := false
	ast.Inspect(s.file, func(n ast.Node) bool {
		if pkg, name := s.qualified(n); pkg == importPath && slices.Contains(names, name) {
			seen = true
		}
		return !seen
	})
	return seen
}

// checkHTTP fences net/http.
func checkHTTP(t *tree) []violation {
	var found []violation
	t.product(func(s *source) {
		if allowed(s, maySpeakHTTP) {
			return
		}
		for _, spec := range s.file.Imports {
			if within(importPath(spec), "net/http") {
				found = append(found, t.at(s, spec,
					"%s imports %s; what looks at mail or changes it has no network door: "+
						"serve it from present or daemon", s.dir, importPath(spec)))
			}
		}
	})
	return found
}

// checkDotImports closes the way around every fence above.
func checkDotImports(t *tree) []violation {
	var found []violation
	for _, s := range t.files {
		for _, spec := range s.file.Imports {
			if spec.Name != nil && spec.Name.Name == "." {
				found = append(found, t.at(s, spec,
					"%s is imported with a dot, which hides whose names are used from readers and from "+
						"the fences; import it by name", importPath(spec)))
			}
		}
	}
	return found
}
