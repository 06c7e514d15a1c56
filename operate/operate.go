// Package operate holds the conversation: it finds the instances, chooses how
// each can be looked at, and looks.
//
// Invariant: no byte of mail is decoded while the process is root. New does
// what only root may do (it reads the configuration and, where maildrop needs
// it, starts the opener) and then gives root up for good, before it returns.
//
// It never falls silent: an instance that can be seen only in part is a
// Snapshot with gaps, one that cannot be seen is an error that says what would
// let it.
package operate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"holdfast/act"
	"holdfast/act/hand"
	"holdfast/durable"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/opener"
	"holdfast/observe/probe"
	"holdfast/observe/showq"
	"holdfast/observe/spool"
	"holdfast/plan"
	"holdfast/postfix"
)

// Options says which relay to operate.
type Options struct {
	// ConfigDirs are Postfix configuration directories; none means all
	// instances that the host has.
	ConfigDirs []string
	// CommandDir is where Postfix's commands are; "" means the usual places.
	CommandDir string
	// Surroundings prepares what Triage needs beside the queue: the right to
	// open logs, and a place below StateDir where probes remember whom they
	// asked, so that nobody is asked too often.
	Surroundings bool
	StateDir     string
	// Policy is what plans are made and run under; nil is UsualPolicy.
	Policy *Policy
	// Record lets what was recorded below StateDir be read. Change starts the
	// hand, too, through which alone something can be changed: it takes root and
	// exactly one instance.
	Record, Change bool
	// Recipients are age public keys to which the vault is encrypted.
	Recipients []string
	// Settings is the file that Policy and Recipients come from, for what is
	// done later; "" is the usual one.
	Settings string
}

// Operator operates the instances of one host.
type Operator struct {
	instances []*instance
	gaps      []observe.Gap
	opener    *opener.Opener
	// memory is the directory of what probes remember.
	memory       string
	surroundings bool

	// What it takes to change something: whose word it is, what is allowed,
	// root's files of state, and the hand. The last two are nil for who only
	// looks.
	who      plan.Who
	policy   Policy
	stateDir string
	state    stateFiles
	hand     act.Hand
	client   *hand.Client
	before   map[string]int // messages by queue when a plan was prepared
}

type instance struct {
	postfix.Instance
	mu     sync.Mutex // a Reader does one thing at a time
	reader *spool.Reader
	// foreign is set where the spool belongs to another account than the one
	// that this process became.
	foreign bool
}

// New finds the instances and gives up root.
func New(ctx context.Context, opts Options) (*Operator, error) {
	found, gaps, err := probe.Instances(ctx, opts.CommandDir, opts.ConfigDirs)
	if err != nil {
		return nil, err
	}
	o := &Operator{gaps: gaps, surroundings: opts.Surroundings, stateDir: opts.StateDir, who: whoRuns(), policy: UsualPolicy()}
	if opts.Policy != nil {
		o.policy = *opts.Policy
	}
	// One process has one identity. Instances with different owners are rare;
	// the first owner's are read, the others are named with what reads them.
	owner := found[0].MailOwner
	if opts.Change {
		if err := o.startHand(found, opts); err != nil {
			return nil, err
		}
	}
	granted := grants(found, opts.Surroundings)
	if opts.Record || opts.Change {
		granted.StateDir = opts.StateDir
	}
	if o.opener, err = opener.Start(granted); err != nil {
		o.gaps = append(o.gaps, observe.Gap{Source: "maildrop", Text: err.Error(), Hint: "messages that local users submitted and pickup did not take yet are not read"})
	}
	if o.opener != nil && granted.StateDir != "" {
		o.state = o.opener
	}
	if opts.Surroundings {
		o.remember(opts.StateDir, owner)
	}
	if err := spool.Drop(owner); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	for _, in := range found {
		reader, err := spool.NewReader(in, spool.Options{Opener: o.opener})
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		o.instances = append(o.instances, &instance{Instance: in, reader: reader, foreign: in.MailOwner != owner})
	}
	return o, nil
}

// grants are what the opener may open for these instances.
func grants(found []postfix.Instance, logs bool) opener.Grants {
	var g opener.Grants
	for _, in := range found {
		g.QueueDirs = append(g.QueueDirs, in.QueueDir)
		if !logs {
			continue
		}
		for _, path := range maillog.Candidates(in.MailLogFile) {
			if !slices.Contains(g.Logs, path) {
				g.Logs = append(g.Logs, path)
			}
		}
	}
	return g
}

// remember makes the directory in which probes note whom they asked when. It
// belongs to the mail owner, since the process that probes runs as that. Who is
// not root finds it there or does without, and then connects to nobody.
func (o *Operator) remember(stateDir, owner string) {
	o.memory = filepath.Join(stateDir, "probes")
	if os.Geteuid() != 0 {
		return
	}
	uid, gid, err := spool.LookupOwner(owner)
	if err == nil {
		err = durable.MkdirFor(o.memory, 0o700, uid, gid)
	}
	if err != nil {
		o.gaps = append(o.gaps, observe.Gap{Source: "state", Object: o.memory, Text: err.Error(), Hint: "mail servers are not connected to: --state-dir names another directory for what probes remember"})
	}
}

// startHand starts the hand, for exactly one instance.
func (o *Operator) startHand(found []postfix.Instance, opts Options) error {
	if os.Geteuid() != 0 {
		return needsRoot("change the queue")
	}
	for _, in := range found {
		o.instances = append(o.instances, &instance{Instance: in})
	}
	one, err := o.only()
	o.instances = nil
	if err != nil {
		return err
	}
	uid, _, err := spool.LookupOwner(one.MailOwner)
	if err != nil {
		return fmt.Errorf("look up the owner of the spool %q: %w", one.MailOwner, err)
	}
	o.client, err = hand.Start(hand.Options{
		StateDir: opts.StateDir, ConfigDir: one.ConfigDir, QueueDir: one.QueueDir, CommandDir: one.CommandDir,
		OwnerUID: uid, HashedQueues: one.HashedQueues, HashDepth: one.HashDepth, Recipients: opts.Recipients, Settings: opts.Settings,
	})
	if err == nil {
		o.hand = o.client
	}
	return err
}

// Serve is the whole life of a process that New started beside itself, and
// reports whether args are those of one. The main function calls it before
// anything else.
func Serve(args []string) bool { return opener.Serve(args) || hand.Serve(args) }

// Close ends what New started.
func (o *Operator) Close() error { return errors.Join(o.client.Close(), o.opener.Close()) }

// Look takes a Snapshot of every instance. A second call reads only what
// changed. Where some instances could be looked at and others not, it returns
// both the Snapshots and an error.
func (o *Operator) Look(ctx context.Context) ([]*observe.Snapshot, error) {
	var snaps []*observe.Snapshot
	var errs []error
	for _, in := range o.instances {
		snap, err := in.look(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		snaps = append(snaps, snap)
	}
	if len(snaps) > 0 && len(o.gaps) > 0 {
		snaps[0].Gaps = append(append([]observe.Gap(nil), o.gaps...), snaps[0].Gaps...)
	}
	return snaps, joined(errs)
}

// joined keeps a single error as it is, so that its kind and hint survive.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// look takes a Snapshot and adds the next hops that the transport tables give.
func (in *instance) look(ctx context.Context) (*observe.Snapshot, error) {
	snap, err := in.lookAtQueue(ctx)
	if err != nil || len(in.TransportMaps) == 0 {
		return snap, err
	}
	routes, gaps := probe.Transports(ctx, in.Instance, snap.Domains())
	snap.Route(routes)
	snap.Gaps = append(slices.Clip(snap.Gaps), gaps...)
	return snap, nil
}

// lookAtQueue reads the spool, or asks showq where the spool may not be read.
func (in *instance) lookAtQueue(ctx context.Context) (*observe.Snapshot, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	snap, err := in.reader.Look(ctx)
	var e *postfix.Error
	if err == nil || !errors.As(err, &e) || e.Kind != postfix.CannotTell {
		return snap, err
	}
	if in.foreign {
		e.Hint = fmt.Sprintf("its spool belongs to another account; look at it alone, with: holdfast -c %s", in.ConfigDir)
	}
	listed, second := showq.Look(ctx, in.Instance)
	if second != nil {
		return nil, bothFailed(e, second)
	}
	listed.Gaps = append(listed.Gaps, observe.Gap{
		Source: "spool", Object: in.QueueDir, Text: e.Err.Error() + "; listed by showq instead, which knows no next try, login name, inode, corrupt or saved queue",
		Hint: e.Hint,
	})
	return listed, nil
}

// bothFailed says what neither way could do; the hint of the first way leads.
func bothFailed(first *postfix.Error, second error) error {
	e := *first
	e.Err = fmt.Errorf("%w; and showq could not be asked: %w", first.Err, second)
	var s *postfix.Error
	if errors.As(second, &s) && s.Hint != "" {
		e.Hint = strings.TrimPrefix(e.Hint+"; "+s.Hint, "; ")
	}
	return &e
}

// Headers reads the headers of one message of a Snapshot, for a selection that
// asks about them.
func (o *Operator) Headers(ctx context.Context, snap *observe.Snapshot, m *postfix.Message) ([]plan.Header, error) {
	for _, in := range o.instances {
		if in.ConfigDir != snap.Instance.ConfigDir {
			continue
		}
		headers, err := in.reader.Headers(ctx, m)
		if err != nil {
			return nil, err
		}
		out := make([]plan.Header, 0, len(headers))
		for _, h := range headers {
			if h.Name != "" {
				out = append(out, plan.Header{Name: h.Name, Value: spool.DecodeWords(h.Value)})
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("read headers of %q: unknown instance %q", m.ID, snap.Instance.Name)
}

// Detail is one message of one instance, looked at closely.
type Detail struct {
	Instance postfix.Instance
	*spool.Detail
	// FromShowq is set where only the listing of showq could be had: then
	// there is nothing but the Message, and that in part.
	FromShowq bool
}

// Show looks at the messages with the given ID, in every instance: the same ID
// can be in two. None at all is an error of kind Failed that wraps
// spool.ErrNoMessage.
func (o *Operator) Show(ctx context.Context, id postfix.QueueID, want spool.Want) ([]Detail, error) {
	var details []Detail
	var errs []error
	for _, in := range o.instances {
		d, err := in.show(ctx, id, want)
		switch {
		case err == nil:
			d.Gaps = append(d.Gaps, o.gaps...)
			details = append(details, *d)
		case !errors.Is(err, spool.ErrNoMessage):
			errs = append(errs, err)
		}
	}
	if len(details) == 0 && len(errs) == 0 {
		return nil, &postfix.Error{
			Kind: postfix.Failed, Op: "show", Object: string(id), Err: spool.ErrNoMessage,
			Hint: "it may have been delivered, returned or removed meanwhile; its log lines tell: grep " + string(id) + " in the mail log",
		}
	}
	return details, joined(errs)
}

func (in *instance) show(ctx context.Context, id postfix.QueueID, want spool.Want) (*Detail, error) {
	in.mu.Lock()
	found, err := in.reader.Inspect(ctx, id, want)
	in.mu.Unlock()
	var e *postfix.Error
	if err == nil {
		in.routeDetail(ctx, found)
		return &Detail{Instance: in.Instance, Detail: found}, nil
	}
	if !errors.As(err, &e) || e.Kind != postfix.CannotTell {
		return nil, err
	}
	snap, lookErr := in.look(ctx)
	if lookErr != nil {
		return nil, lookErr
	}
	messages := snap.Find(id)
	if len(messages) == 0 {
		if len(snap.Gaps) > 1 || snap.Source == observe.FromSpool {
			return nil, err
		}
		return nil, spool.ErrNoMessage
	}
	return &Detail{Instance: in.Instance, Detail: &spool.Detail{Message: messages[0], Gaps: snap.Gaps}, FromShowq: true}, nil
}

// routeDetail does for one message what look does for all.
func (in *instance) routeDetail(ctx context.Context, d *spool.Detail) {
	if len(in.TransportMaps) == 0 || d.Message.Filter != "" {
		return
	}
	var domains []string
	for i := range d.Message.Recipients {
		domains = append(domains, d.Message.DestinationOf(&d.Message.Recipients[i]))
	}
	routes, gaps := probe.Transports(ctx, in.Instance, domains)
	observe.RouteMessage(d.Message, routes)
	d.Gaps = append(d.Gaps, gaps...)
}
