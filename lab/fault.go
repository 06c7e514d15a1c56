package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Params are the parameters of a fault, by name.
type Params map[string]string

// FaultKind is something that can be broken and mended again.
type FaultKind struct {
	Name    string       `json:"name"`
	Summary string       `json:"summary"`
	Cure    string       `json:"cure"` // what the cure does
	Params  []FaultParam `json:"params,omitempty"`

	// prepare finds out what the cure will need, and refuses what cannot be done; it changes nothing. What it returns is
	// on disk before act runs, so that a fault can be cured although the program that made it was killed half-way. For
	// the same reason cure must bear being run after only half of act, or twice.
	prepare func(context.Context, *Lab, args) (undo any, err error)
	act     func(context.Context, *Lab, args, json.RawMessage) error
	cure    func(context.Context, *Lab, args, json.RawMessage) error
}

// FaultParam is a parameter of a fault.
type FaultParam struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"` // text, number, size, address, choice, json
	Help     string   `json:"help"`
	Default  string   `json:"default,omitempty"`
	Required bool     `json:"required,omitempty"`
	Choices  []string `json:"choices,omitempty"`
}

// ActiveFault is a fault that has not been cured.
type ActiveFault struct {
	ID     int             `json:"id"`
	Name   string          `json:"name"`
	Params Params          `json:"params,omitempty"`
	Since  time.Time       `json:"since"`
	Undo   json.RawMessage `json:"undo,omitempty"`
}

// faultTimeout bounds one start or cure. Stopping Postfix alone may take ten seconds.
const faultTimeout = time.Minute

// FaultKinds is the table of everything that can be broken.
func FaultKinds() []FaultKind {
	return slices.Concat(networkFaults(), storageFaults(), processFaults(), worldFaults())
}

func faultKind(name string) (FaultKind, error) {
	for _, k := range FaultKinds() {
		if k.Name == name {
			return k, nil
		}
	}
	return FaultKind{}, fmt.Errorf("fault %q is unknown; see: holdfast-lab fault --list", name)
}

// args are checked parameters with their defaults filled in.
type args struct {
	Params
	id int // of the active fault; makes names unique
}

func (a args) number(name string) int64 {
	n, _ := strconv.ParseInt(a.Params[name], 10, 64) // checked by check
	return n
}

func (a args) size(name string) int64 {
	n, _ := parseBytes(a.Params[name]) // checked by check
	return n
}

// check fills in defaults and refuses what is missing, unknown or malformed.
func (k FaultKind) check(given Params) (Params, error) {
	full := Params{}
	for name := range given {
		if !slices.ContainsFunc(k.Params, func(p FaultParam) bool { return p.Name == name }) {
			return nil, fmt.Errorf("fault %q has no parameter %q", k.Name, name)
		}
	}
	for _, p := range k.Params {
		value, ok := given[p.Name]
		if !ok {
			if p.Required {
				return nil, fmt.Errorf("fault %q needs the parameter %q: %s", k.Name, p.Name, p.Help)
			}
			value = p.Default
		}
		if err := p.checkValue(value); err != nil {
			return nil, fmt.Errorf("fault %q: parameter %q: %w", k.Name, p.Name, err)
		}
		full[p.Name] = value
	}
	return full, nil
}

func (p FaultParam) checkValue(value string) error {
	if value == "" && !p.Required {
		return nil
	}
	var err error
	switch p.Type {
	case "number":
		_, err = strconv.ParseInt(value, 10, 64)
	case "size":
		_, err = parseBytes(value)
	case "address":
		_, err = netip.ParseAddr(value)
	case "choice":
		if !slices.Contains(p.Choices, value) {
			err = fmt.Errorf("%q is none of %s", value, strings.Join(p.Choices, ", "))
		}
	case "json":
		if !json.Valid([]byte(value)) {
			err = fmt.Errorf("%q is not JSON", value)
		}
	}
	return err
}

// Fault breaks something. The same fault may be started more than once with different parameters.
func (l *Lab) Fault(name string, params Params) error {
	kind, err := faultKind(name)
	if err != nil {
		return err
	}
	full, err := kind.check(params)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), faultTimeout)
	defer cancel()
	return l.withFaults(func(active *[]ActiveFault) error {
		f := ActiveFault{ID: 1, Name: name, Params: full, Since: time.Now().UTC()}
		for _, other := range *active {
			f.ID = max(f.ID, other.ID+1)
		}
		undo, err := kind.prepare(ctx, l, args{full, f.ID})
		if err != nil {
			return fmt.Errorf("start fault %q: %w", name, err)
		}
		if f.Undo, err = json.Marshal(undo); err != nil {
			return fmt.Errorf("encode what cures fault %q: %w", name, err)
		}
		*active = append(*active, f)
		if err := l.writeFaults(*active); err != nil {
			return err
		}
		if err := kind.act(ctx, l, args{full, f.ID}, f.Undo); err != nil {
			return fmt.Errorf("start fault %q: %w", name, errors.Join(err, l.cureOne(ctx, active, f)))
		}
		return nil
	})
}

// Cure mends what Fault broke, latest first: all faults of that name, the one with that number, or "all".
func (l *Lab) Cure(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*faultTimeout)
	defer cancel()
	return l.withFaults(func(active *[]ActiveFault) error {
		found := false
		var errs []error
		for _, f := range slices.Backward(slices.Clone(*active)) {
			if name == "all" || f.Name == name || strconv.Itoa(f.ID) == name {
				found = true
				errs = append(errs, l.cureOne(ctx, active, f))
			}
		}
		if !found && name != "all" {
			return fmt.Errorf("no fault %q is active in lab %q; see: holdfast-lab status %s", name, l.Name, l.Name)
		}
		return errors.Join(errs...)
	})
}

// cureOne leaves a fault in the list if the cure fails, so that it can be tried again.
func (l *Lab) cureOne(ctx context.Context, active *[]ActiveFault, f ActiveFault) error {
	kind, err := faultKind(f.Name)
	if err != nil {
		return err
	}
	if err := kind.cure(ctx, l, args{f.Params, f.ID}, f.Undo); err != nil {
		return fmt.Errorf("cure fault %q: %w", f.Name, err)
	}
	*active = slices.DeleteFunc(*active, func(other ActiveFault) bool { return other.ID == f.ID })
	return l.writeFaults(*active)
}

// Faults lists the active faults, oldest first.
func (l *Lab) Faults() ([]ActiveFault, error) {
	var active []ActiveFault
	err := readJSON(filepath.Join(l.Dir, faultsName), &active)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return active, err
}

func (l *Lab) writeFaults(active []ActiveFault) error {
	return writeJSON(filepath.Join(l.Dir, faultsName), active)
}

// withFaults lets one program at a time change faults.
func (l *Lab) withFaults(f func(*[]ActiveFault) error) error {
	lock, err := os.OpenFile(filepath.Join(l.Dir, faultsName+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open lock of faults: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock faults: %w", err)
	}
	active, err := l.Faults()
	if err != nil {
		return err
	}
	return f(&active)
}

// undoAs decodes what prepare left for the cure.
func undoAs[T any](raw json.RawMessage) (T, error) {
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("decode what cures the fault: %w", err)
	}
	return v, nil
}

// nothingToUndo is the prepare of faults whose cure follows from their parameters.
func nothingToUndo(context.Context, *Lab, args) (any, error) { return nil, nil }

var instanceParam = FaultParam{Name: "instance", Type: "text", Help: "Postfix instance; the primary unless set"}
