package plan

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"holdfast/postfix"
)

const (
	// maxWhere bounds the text of an expression, maxWhereNodes its parts: the
	// parser recurses (CVE-2025-29786).
	maxWhere      = 4096
	maxWhereNodes = 1000
	// whereMemory bounds what the evaluation of one message may build, in
	// elements of lists.
	whereMemory = 10_000

	whereHow = `write a condition over the fields of a message: size > bytes("10M") and any(recipients, .domain == "example.com")`
)

// whereFunctions are the functions of --where. Everything else that the
// library offers is refused: what builds lists or texts of its own, sorts,
// nests loops, or reads a clock.
func whereFunctions() []FieldDoc {
	return []FieldDoc{
		{Name: "any", Type: "any(LIST, CONDITION)", Doc: "true if one element meets the condition, in which .name is a field of the element and # the element itself"},
		{Name: "all", Type: "all(LIST, CONDITION)", Doc: "true if every element does"},
		{Name: "none", Type: "none(LIST, CONDITION)", Doc: "true if no element does"},
		{Name: "one", Type: "one(LIST, CONDITION)", Doc: "true if exactly one element does"},
		{Name: "count", Type: "count(LIST, CONDITION)", Doc: "the number of elements that do"},
		{Name: "len", Type: "len(LIST OR TEXT)", Doc: "the number of elements, or of letters"},
		{Name: "lower", Type: "lower(TEXT)", Doc: "the text in lower case"},
		{Name: "upper", Type: "upper(TEXT)", Doc: "the text in upper case"},
		{Name: "trim", Type: "trim(TEXT)", Doc: "the text without blanks at its ends"},
		{Name: "indexOf", Type: "indexOf(TEXT, PART)", Doc: "where the part starts, -1 if it is not there"},
		{Name: "abs", Type: "abs(NUMBER)", Doc: "the number without its sign"},
		{Name: "duration", Type: `duration("3d")`, Doc: "a duration, written as for --older-than"},
		{Name: "bytes", Type: `bytes("10M")`, Doc: "a number of bytes, written as for --larger-than"},
		{Name: "date", Type: `date("2026-03-01 14:00")`, Doc: "a time: a date, with or without a time of day, in UTC unless it says otherwise (RFC 3339)"},
		{Name: "now", Type: "now()", Doc: "the time for which the selection is evaluated"},
	}
}

// WhereFunctions lists the functions of --where: their names, how they are
// called (as Type), and what they return.
func WhereFunctions() []FieldDoc { return whereFunctions() }

// where is a compiled expression.
type where struct {
	source  string
	program *vm.Program
	uses    map[string]bool // fields that are named, "recipients[].cause" too
	pool    sync.Pool       // of *evaluation
}

type evaluation struct {
	vm      vm.VM
	scratch scratch
}

// compileWhere checks and compiles an expression. What it accepts cannot fail
// by its types, has no effect, and takes time in proportion to the expression
// times the recipients and headers of a message.
func compileWhere(source string, at time.Time) (*where, error) {
	if err := checkValue(source); err != nil {
		return nil, mistake("where", source, err)
	}
	if len(source) > maxWhere {
		return nil, mistake("where", source, fmt.Errorf("longer than %d bytes", maxWhere))
	}
	fence := newFence(at)
	program, err := compileProgram(source, fence)
	if found := fence.first(); found != nil {
		return nil, mistake("where", source, located(found.Bind(file.NewSource(source)), found.Message))
	}
	if err != nil {
		return nil, mistake("where", source, shorten(err))
	}
	w := &where{source: source, program: program, uses: fence.uses}
	w.pool.New = func() any { return &evaluation{vm: vm.VM{MemoryBudget: whereMemory}} }
	return w, nil
}

// compileProgram turns a panic of the library into an error: its parser, its
// checker and its optimiser (which evaluates constants) are not free of them,
// and what an operator types must not end the program.
func compileProgram(source string, fence *fence) (program *vm.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			program, err = nil, fmt.Errorf("it cannot be compiled: %v", r)
		}
	}()
	return expr.Compile(source, expr.Env(&Fields{}), expr.AsBool(), expr.WarnOnAny(), expr.MaxNodes(maxWhereNodes), expr.Patch(fence))
}

func (w *where) needsHeaders() bool { return w.uses["headers"] || w.uses["message_id"] }

func (w *where) spoolOnly() []string {
	var names []string
	for _, d := range WhereFields() {
		if d.spoolOnly && w.uses[d.Name] {
			names = append(names, d.Name)
		}
	}
	return names
}

// match judges one message.
func (w *where) match(msg *postfix.Message, at time.Time, content *lazyHeaders) (bool, error) {
	if (w.uses["arrival"] || w.uses["age"]) && msg.Arrival.IsZero() {
		return false, cannotJudge(msg, "its arrival time is not known")
	}
	if (w.uses["expires"] || w.uses["expires_in"]) && msg.Expires.IsZero() {
		return false, cannotJudge(msg, "the time of its expiry is not known")
	}
	e := w.pool.Get().(*evaluation) //nolint:errcheck,forcetypeassert // the pool holds nothing else
	defer w.pool.Put(e)
	if err := e.scratch.fill(msg, at, w.uses, content); err != nil {
		return false, err
	}
	out, err := e.vm.Run(w.program, &e.scratch.fields)
	if err != nil {
		return false, mistake("where", w.source, fmt.Errorf("message %s: %w", msg.ID, shorten(err)))
	}
	in, ok := out.(bool)
	if !ok {
		return false, mistake("where", w.source, errors.New("it is neither true nor false"))
	}
	return in, nil
}

// shorten puts the position first and leaves out the picture of the expression
// that the library appends: the expression is already in the message.
func shorten(err error) error {
	var at *file.Error
	if !errors.As(err, &at) {
		return errors.New(plainTypes(err.Error()))
	}
	return located(at, plainTypes(at.Message))
}

func located(at *file.Error, text string) error {
	if at.Line > 1 {
		return fmt.Errorf("line %d, column %d: %s", at.Line, at.Column+1, text)
	}
	return fmt.Errorf("column %d: %s", at.Column+1, text)
}

// goTypes are the types as the library names them.
var goTypes = regexp.MustCompile(`\*?plan\.RecipientFields\b|\*?plan\.Header\b|\[\]|\btime\.(?:Duration|Time)\b|\b(?:string|int|bool|float64)\b`)

// plainTypes puts the words of WhereFields in place of types.
func plainTypes(s string) string {
	if typed, ok := strings.CutPrefix(s, "expected bool, but got "); ok {
		s = "a condition is true or false, but this is of type " + typed
	}
	s = goTypes.ReplaceAllStringFunc(s, func(name string) string {
		switch strings.TrimLeft(name, "*") {
		case "plan.RecipientFields":
			return "recipient"
		case "plan.Header":
			return "header"
		case "[]":
			return "list of "
		case "time.Duration":
			return "duration"
		case "time.Time":
			return "time"
		case "string":
			return "text"
		case "bool":
			return "true or false"
		}
		return "number"
	})
	return s
}

// fence visits a parsed expression. It notes which fields are used, puts
// constants in place of duration("2h") and the like, so that their mistakes
// show before the first message, and finds what is not allowed.
type fence struct {
	at        time.Time
	fields    map[string]FieldDoc
	functions map[string]bool
	uses      map[string]bool
	unknown   map[ast.Node]string // identifiers that are no field; called ones are functions
	found     []*file.Error
}

func newFence(at time.Time) *fence {
	f := &fence{
		at: at, fields: make(map[string]FieldDoc), functions: make(map[string]bool),
		uses: make(map[string]bool), unknown: make(map[ast.Node]string),
	}
	for _, d := range WhereFields() {
		f.fields[d.Name] = d
	}
	for _, d := range whereFunctions() {
		f.functions[d.Name] = true
	}
	return f
}

func (f *fence) refuse(n ast.Node, format string, args ...any) {
	f.found = append(f.found, &file.Error{Location: n.Location(), Message: fmt.Sprintf(format, args...)})
}

// first returns the leftmost thing that is not allowed.
func (f *fence) first() *file.Error {
	for n, name := range f.unknown {
		f.refuse(n, "unknown field %s%s", strconv.QuoteToASCII(clip(name)), didYouMean(name, f.names("")))
	}
	clear(f.unknown)
	slices.SortStableFunc(f.found, func(a, b *file.Error) int { return a.From - b.From })
	if len(f.found) == 0 {
		return nil
	}
	return f.found[0]
}

// names returns the fields below a prefix such as "recipients[].".
func (f *fence) names(prefix string) []string {
	var names []string
	for _, d := range WhereFields() {
		if name, ok := strings.CutPrefix(d.Name, prefix); ok && !strings.Contains(name, "[]") {
			names = append(names, name)
		}
	}
	return names
}

// Visit implements ast.Visitor. Nodes come after those below them.
func (f *fence) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if _, ok := f.fields[n.Value]; ok {
			f.uses[n.Value] = true
		} else {
			f.unknown[n] = n.Value
		}
	case *ast.MemberNode:
		f.visitMember(n)
	case *ast.CallNode:
		callee, ok := n.Callee.(*ast.IdentifierNode)
		if !ok {
			f.refuse(n, "only functions can be called")
			return
		}
		delete(f.unknown, callee)
		f.visitFunction(node, callee.Value, n.Arguments)
	case *ast.BuiltinNode:
		f.visitFunction(node, n.Name, n.Arguments)
	case *ast.PredicateNode:
		ast.Walk(&n.Node, &loopFence{fence: f})
	case *ast.BinaryNode:
		f.visitOperator(n)
	case *ast.VariableDeclaratorNode, *ast.SequenceNode, *ast.MapNode, *ast.BytesNode:
		f.refuse(n, "only one condition without variables is possible")
	}
}

func (f *fence) visitMember(n *ast.MemberNode) {
	property, ok := n.Property.(*ast.StringNode)
	if !ok {
		return
	}
	var prefix string
	switch n.Node.Type() {
	case reflect.TypeFor[*RecipientFields](), reflect.TypeFor[RecipientFields]():
		prefix = "recipients[]."
	case reflect.TypeFor[*Header](), reflect.TypeFor[Header]():
		prefix = "headers[]."
	default:
		return // the type check finds what has no fields
	}
	if _, ok := f.fields[prefix+property.Value]; !ok {
		f.refuse(n, "unknown field %s%s", strconv.QuoteToASCII(clip(property.Value)), didYouMean(property.Value, f.names(prefix)))
		return
	}
	f.uses[prefix+property.Value] = true
}

func (f *fence) visitOperator(n *ast.BinaryNode) {
	switch n.Operator {
	case "..":
		f.refuse(n, "ranges are not possible; write a <= x and x <= b")
	case "matches":
		// One pattern, compiled once and before the first message. A text of
		// the message as the pattern would be code from a stranger.
		pattern, ok := n.Right.(*ast.StringNode)
		if !ok {
			f.refuse(n.Right, "a regular expression must be written out")
			return
		}
		if _, err := regexp.Compile(pattern.Value); err != nil {
			f.refuse(n.Right, "no regular expression: %v", err)
		}
	}
}

func (f *fence) visitFunction(node *ast.Node, name string, args []ast.Node) {
	if !f.functions[name] {
		names := make([]string, 0, len(f.functions))
		for _, d := range whereFunctions() {
			names = append(names, d.Name)
		}
		f.refuse(*node, "there is no function %s; there are %s", strconv.QuoteToASCII(clip(name)), strings.Join(names, ", "))
		return
	}
	var value any
	var err error
	switch name {
	case "now":
		if len(args) > 0 {
			err = errors.New("it takes no value")
		}
		value = f.at.UTC()
	case "duration":
		value, err = constant(args, ParseDuration)
	case "bytes":
		value, err = constant(args, func(s string) (int, error) {
			n, err := ParseSize(s)
			return int(n), err
		})
	case "date":
		value, err = constant(args, parseDate)
	default:
		return
	}
	if err != nil {
		f.refuse(*node, "%s: %v", name, err)
		return
	}
	replacement := &ast.ConstantNode{Value: value}
	replacement.SetType(reflect.TypeOf(value))
	ast.Patch(node, replacement)
}

func constant[T any](args []ast.Node, parse func(string) (T, error)) (T, error) {
	var zero T
	if len(args) != 1 {
		return zero, errors.New("it takes one value")
	}
	literal, ok := args[0].(*ast.StringNode)
	if !ok {
		return zero, errors.New("its value must be written out, between quotes")
	}
	return parse(literal.Value)
}

func parseDate(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is not a date; write 2026-03-01 or 2026-03-01 14:00", strconv.QuoteToASCII(clip(s)))
}

// loopFence keeps the condition of any() and its like free of a second loop,
// so that a message of 100,000 recipients costs 100,000 steps and not their
// square.
type loopFence struct{ fence *fence }

// Visit implements ast.Visitor.
func (l *loopFence) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.PredicateNode:
		l.fence.refuse(n, "a condition on elements cannot contain another one")
	case *ast.IdentifierNode:
		if d, ok := l.fence.fields[n.Value]; ok && strings.HasPrefix(d.Type, "list ") {
			l.fence.refuse(n, "the list %s cannot be used in a condition on elements", n.Value)
		}
	}
}
