// Package holdfast_test keeps the house in order: which folder may import
// which, who may start a process, write a file or speak HTTP, how long a
// function may be, and that every package says what it is for.
//
// Invariant: every rule is data plus one function over the parsed tree, and
// every rule is shown to bite by a violation planted under
// testdata/architecture. A rule that finds nothing there fails.
//
// What it never does: it does not resolve types. It reads what the source
// says, so that it also works on code that does not compile yet, and costs
// less than a second.
//
// Diagnostics: each failure is file:line and a sentence that says why the rule
// exists and what to do instead.
//
// Bugs: a local variable named like a package (os, exec) is taken for it; a
// value that carries a power (an *exec.Cmd that was handed over) is not seen.
package holdfast_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "holdfast"

// order is the workflow, from the vocabulary to the programs. A folder may
// import only folders named before it. Folders below a named one belong to it.
var order = []string{
	"postfix",
	"durable",
	"config",
	"observe",
	"observe/opener",
	"observe/spool",
	"observe/showq",
	"observe/maillog",
	"observe/probe",
	"diagnose",
	"plan",
	"record",
	"record/audit",
	"record/vault",
	"account",
	"act/internal/postcmd", // before act, which alone may import it: Go's own rule for internal
	"act/hand",
	"act",
	"control",
	"replay",
	"operate",
	"fleet",
	"present",
	"present/cli",
	"present/tui",
	"present/web",
	"present/metrics",
	"daemon",
	"lab",
	"cmd/holdfast",
	"cmd/holdfast-lab",
}

// workshop are the folders that build, measure and test the product and are no
// part of it: they may import everything, and nothing may import them.
var workshop = []string{"bench", "scripts", "test"}

// noHands are folders that show and wire. They decide nothing, so they get
// nothing to decide with.
var noHands = []string{"present", "cmd/holdfast"}

// hands are the packages with which one could change mail or state.
var hands = []string{"durable", "act"}

// source is one Go file, parsed.
type source struct {
	path    string // relative to the root of the tree, with slashes
	dir     string // folder of path; "." at the root
	lines   int
	file    *ast.File
	imports map[string]string // name in this file → import path
}

// isTest says whether the file is outside the order and the sizes.
func (s *source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// tree is the parsed repository.
type tree struct {
	fset  *token.FileSet
	files []*source
}

// violation is one broken rule at one place.
type violation struct {
	path string
	line int
	text string
}

func (v violation) String() string { return fmt.Sprintf("%s:%d: %s", v.path, v.line, v.text) }

// at makes a violation of a node of a file.
func (t *tree) at(s *source, n ast.Node, format string, args ...any) violation {
	return violation{s.path, t.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...)}
}

// rule looks at the whole tree and says what is wrong with it.
type rule struct {
	name  string
	check func(*tree) []violation
}

// rules is every rule that the tree is held to.
var rules = []rule{
	{"order", checkOrder},
	{"lab stays home", checkLab},
	{"screens decide nothing", checkHands},
	{"processes", checkProcesses},
	{"read-only programs", checkReadOnlyPrograms},
	{"state files", checkStateFiles},
	{"http", checkHTTP},
	{"no dot imports", checkDotImports},
	{"sizes", checkSizes},
	{"package comments", checkPackageComments},
	{"names", checkNames},
}

func TestTreeKeepsItsRules(t *testing.T) {
	tr := readTree(t, ".")
	if len(tr.files) < 10 {
		t.Fatalf("found %d Go files: the test does not see the repository", len(tr.files))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, v := range r.check(tr) {
				t.Error(v)
			}
		})
	}
}

// wantComment is how a planted file says what must be found on its line:
//
//	code // want "rule: part of the sentence"
var wantComment = regexp.MustCompile(`// want "([^":]+): ([^"]+)"`)

// TestPlantedViolationsAreFound proves that each rule can fail: exactly the
// violations that the planted tree announces are found, no more and no fewer.
func TestPlantedViolationsAreFound(t *testing.T) {
	const root = "testdata/architecture"
	tr := readTree(t, root)
	type key struct {
		rule, path string
		line       int
	}
	wanted := map[key]string{}
	for _, s := range tr.files {
		text, err := os.ReadFile(filepath.Join(root, s.path))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			for _, m := range wantComment.FindAllSubmatch(line, -1) {
				wanted[key{string(m[1]), s.path, i + 1}] = string(m[2])
			}
		}
	}
	for _, r := range rules {
		hits := 0
		for _, v := range r.check(tr) {
			k := key{r.name, v.path, v.line}
			part, planted := wanted[k]
			switch {
			case !planted:
				t.Errorf("rule %q found what nobody planted: %v", r.name, v)
			case !strings.Contains(v.text, part):
				t.Errorf("rule %q says %q, want a sentence with %q", r.name, v, part)
			default:
				hits++
				delete(wanted, k)
			}
		}
		if hits == 0 && r.name != "sizes" { // sizes are planted by TestSizesBite
			t.Errorf("rule %q found none of the planted violations", r.name)
		}
	}
	for k, part := range wanted {
		t.Errorf("rule %q missed the violation planted at %s:%d (%s)", k.rule, k.path, k.line, part)
	}
}

// readTree parses every Go file below root. Folders that the go command
// ignores are ignored here as well.
func readTree(t *testing.T, root string) *tree {
	t.Helper()
	tr := &tree{fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != root && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") ||
				base == "testdata" || base == "node_modules" || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return tr.add(filepath.ToSlash(rel), name)
	})
	if err != nil {
		t.Fatalf("read tree %q: %v", root, err)
	}
	return tr
}

// add parses one file into the tree.
func (t *tree) add(rel, name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(t.fset, rel, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	s := &source{
		path: rel, dir: path.Dir(rel), file: file,
		lines:   bytes.Count(text, []byte("\n")),
		imports: map[string]string{},
	}
	for _, spec := range file.Imports {
		s.imports[importName(spec)] = importPath(spec)
	}
	t.files = append(t.files, s)
	return nil
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value // the parser has accepted it, so this is unreachable
	}
	return p
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// importName is the name by which a file speaks of an import.
func importName(spec *ast.ImportSpec) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	p := importPath(spec)
	base := path.Base(p)
	if majorVersion.MatchString(base) {
		base = path.Base(path.Dir(p))
	}
	return base
}

// within says whether dir is folder or lies below it.
func within(dir, folder string) bool {
	return dir == folder || strings.HasPrefix(dir, folder+"/")
}

// withinAny says whether dir lies in one of the folders.
func withinAny(dir string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return within(dir, f) })
}

// rank is the place of a folder in the order: that of the longest name it
// lies within, or -1.
func rank(dir string) int {
	best := -1
	for i, folder := range order {
		if within(dir, folder) && (best < 0 || len(folder) > len(order[best])) {
			best = i
		}
	}
	return best
}

// ownImports calls visit for each import of a package of this module by a
// file of the product.
func (t *tree) ownImports(visit func(s *source, spec *ast.ImportSpec, dir string)) {
	for _, s := range t.files {
		if s.isTest() || withinAny(s.dir, workshop) {
			continue
		}
		for _, spec := range s.file.Imports {
			if dir, ok := strings.CutPrefix(importPath(spec), modulePath+"/"); ok {
				visit(s, spec, dir)
			}
		}
	}
}

// checkOrder holds every product file to the order of the folders.
func checkOrder(t *tree) []violation {
	var found []violation
	unknown := map[string]bool{}
	for _, s := range t.files {
		if s.isTest() || withinAny(s.dir, workshop) || rank(s.dir) >= 0 || unknown[s.dir] {
			continue
		}
		unknown[s.dir] = true
		where := "folder " + strconv.Quote(s.dir)
		if s.dir == "." {
			where = "the root of the repository"
		}
		found = append(found, t.at(s, s.file.Name,
			"%s has no place in the workflow; move the code into the stage that it belongs to, "+
				"or name the folder in order (architecture_test.go) and in ARCHITECTURE.md", where))
	}
	t.ownImports(func(s *source, spec *ast.ImportSpec, dir string) {
		from, to := rank(s.dir), rank(dir)
		switch {
		case from < 0:
			// Reported above, once.
		case withinAny(dir, workshop):
			found = append(found, t.at(s, spec,
				"%s imports %s, which builds and tests the product and is no part of it; "+
					"move what is needed into a stage", s.dir, dir))
		case to < 0:
			found = append(found, t.at(s, spec,
				"%s imports %s, which has no place in the workflow; name it in order first", s.dir, dir))
		case to > from:
			found = append(found, t.at(s, spec,
				"%s imports %s, which comes after it in the workflow; an arrow that runs back makes both "+
					"impossible to read alone, so take a value or a small interface that the caller fills",
				s.dir, dir))
		}
	})
	return found
}

// checkLab keeps the fault injectors out of what ships.
func checkLab(t *tree) []violation {
	var found []violation
	t.ownImports(func(s *source, spec *ast.ImportSpec, dir string) {
		if within(dir, "lab") && !withinAny(s.dir, []string{"lab", "cmd/holdfast-lab"}) {
			found = append(found, t.at(s, spec,
				"%s imports %s; fault injectors never ship to a mail server, so only cmd/holdfast-lab "+
					"and tests may know the lab", s.dir, dir))
		}
	})
	return found
}

// checkHands keeps screens and mains from deciding.
func checkHands(t *tree) []violation {
	var found []violation
	t.ownImports(func(s *source, spec *ast.ImportSpec, dir string) {
		if withinAny(s.dir, noHands) && withinAny(dir, hands) {
			found = append(found, t.at(s, spec,
				"%s imports %s; screens and mains decide nothing, so that every door does the same: "+
					"go through operate", s.dir, dir))
		}
	})
	return found
}
