package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/observe"
	"holdfast/plan"
	"holdfast/postfix"
	"holdfast/present"
)

// queueOptions is what the flags of the verb say.
type queueOptions struct {
	sel     plan.Selector
	by      string
	ages    string
	sort    string
	reverse bool
	limit   int
	watch   time.Duration
}

// Limits of a listing where --limit is not given.
const (
	limitNotGiven = -1
	limitOfText   = 20
)

func (p *program) queueCommand() *cobra.Command {
	o := &queueOptions{}
	cmd := &cobra.Command{
		Use: "queue [flags] [ID... | -]", Short: "what is in the queue, where it wants to go and why it waits",
		GroupID: groupLook,
		Long: "Shows the messages in all queues of Postfix: how many, where they want to go and\n" +
			"why they wait. Flags select messages: different flags narrow, the same flag\n" +
			"again adds. With - the IDs of messages are read from stdin, one a line.",
		Example: "  holdfast queue\n" +
			"  holdfast queue --by destination --cause remote-throttling\n" +
			"  holdfast queue --domain example.com --older-than 2h --sort size\n" +
			"  holdfast queue --where 'recipient_count > 100 && age > duration(\"1h\")'\n" +
			"  holdfast queue --ages\n" +
			"  holdfast queue --queue hold -o json | jq -r .id",
		RunE: p.run(func(ctx context.Context, args []string) error { return p.queue(ctx, *o, args) }),
	}
	p.describe(cmd, verb{
		sections: []section{
			{"Which messages (holdfast help where lists the fields of --where)", selectionFlags(&o.sel)},
			{"How they are shown", viewFlags(o)},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitCannotTell, exitInterrupted},
	})
	// Registration fails only for a flag that does not exist, and the tests
	// would see that no words are offered.
	_ = errors.Join(completeSelection(cmd), completeWords(cmd, "by", present.AllBy()), completeWords(cmd, "sort", present.Orders()))
	return cmd
}

func viewFlags(o *queueOptions) *pflag.FlagSet {
	f := pflag.NewFlagSet("view", pflag.ContinueOnError)
	f.Var(newChoice(&o.by, "", words(present.AllBy())...), "by", "count the messages by `FIELD`: "+strings.Join(words(present.AllBy()), ", "))
	f.Var(newChoice(&o.ages, "", "destination", "sender"), "ages", "the table of ages that qshape prints, `OF` destination or of sender: columns are minutes, rows are domains")
	f.Lookup("ages").NoOptDefVal = "destination"
	f.Var(newChoice(&o.sort, string(present.OldestFirst), words(present.Orders())...), "sort", "list in this `ORDER`: "+strings.Join(words(present.Orders()), ", "))
	f.BoolVar(&o.reverse, "reverse", false, "list in the opposite order")
	f.IntVar(&o.limit, "limit", limitNotGiven, "show at most `N` lines; 0 is all (text shows 20, json all)")
	f.Lookup("limit").DefValue = "0" // hides the mark of "not given" from the help text
	f.DurationVar(&o.watch, "watch", 0, "look again every `INTERVAL` until interrupted (2s where none is given)")
	f.Lookup("watch").NoOptDefVal = usualWatch
	return f
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}

func (o *queueOptions) check() error {
	switch {
	case o.by != "" && o.ages != "":
		return usageError("give one of the two", "--by and --ages are two different tables")
	case o.limit < limitNotGiven:
		return usageError("--limit 0 shows everything", "--limit %d is negative", o.limit)
	}
	return checkWatch(o.watch)
}

// queue runs the verb.
func (p *program) queue(ctx context.Context, o queueOptions, args []string) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if err := addIDs(&o.sel, args, p.env.Stdin); err != nil {
		return err
	}
	if o.sel.IsZero() {
		o.sel.All = true
	}
	// A mistake in the selection is told before anything is opened.
	if _, err := o.sel.Compile(time.Time{}); err != nil {
		return err
	}
	op, err := p.env.Open(ctx, p.settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, op.Close()) }()
	q := &queueRun{program: p, queueOptions: o, op: op}
	if o.watch > 0 {
		return p.screen.again(ctx, o.watch, q.once)
	}
	return q.once(ctx)
}

// queueRun is one run of the verb.
type queueRun struct {
	*program
	queueOptions
	op Operator
	// above is how many lines stand on the screen before the list begins.
	above int
}

// once looks and tells.
func (q *queueRun) once(ctx context.Context) error {
	snaps, failed := q.op.Look(ctx)
	views := make([]*view, 0, len(snaps))
	for _, snap := range snaps {
		v, err := q.collect(ctx, snap)
		if err != nil {
			return err
		}
		views = append(views, v)
	}
	for i, v := range views {
		if err := q.render(v, len(views) > 1, i == 0); err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	return q.verdict(views)
}

// verdict says what the look leaves open.
func (q *queueRun) verdict(views []*view) error {
	asked := q.sel.Queues
	if asked == nil {
		asked = postfix.Queues()
	}
	known, every := 0, true
	for _, v := range views {
		for _, queue := range asked {
			if v.snap.Shape(queue).Known {
				known++
			} else {
				every = false
			}
		}
		every = every && len(v.snap.Gaps) == 0
	}
	if known == 0 && len(asked) > 0 {
		e := &postfix.Error{Kind: postfix.CannotTell, Err: errors.New("no queue could be looked at")}
		if q.sel.Queues != nil {
			e.Err = fmt.Errorf("queue %s could not be looked at", strings.Join(queueNames(q.sel.Queues), ", "))
		}
		e.Hint = "root and the mail owner can see every queue"
		return e
	}
	met := make([]map[postfix.QueueID]bool, 0, len(views))
	for _, v := range views {
		met = append(met, v.met)
		if v.unjudged > 0 && v.total().Messages == 0 {
			return &postfix.Error{Kind: postfix.CannotTell, Err: fmt.Errorf("%s could not be judged by this selection: %w", present.Plural(v.unjudged, "message", "messages"), v.judgeErr)}
		}
	}
	if lost := missing(q.sel.IDs, met); len(lost) > 0 {
		return notThere(lost, len(lost), "queue", every)
	}
	return nil
}

func queueNames(queues []postfix.Queue) []string {
	out := make([]string, len(queues))
	for i, q := range queues {
		out[i] = q.String()
	}
	return out
}

// view is what one look at one instance gives to the screen. Parts that the
// chosen form does not need are nil.
type view struct {
	snap *observe.Snapshot
	sum  *present.Tally // by queue
	by   *present.Tally
	why  *present.Tally
	dest *present.Tally
	ages *present.AgeTable
	list []*present.Listing
	// met are those of the named IDs that were seen.
	met map[postfix.QueueID]bool
	// unjudged counts messages of which could not be told whether they are
	// meant; judgeErr is why the first was not.
	unjudged int
	judgeErr error
}

func (v *view) total() present.Group { return v.sum.Total() }

// gaps are those of the snapshot and those that the selection met.
func (v *view) gaps() []observe.Gap {
	if v.unjudged == 0 {
		return nil
	}
	return []observe.Gap{{
		Source: "selection", Text: v.judgeErr.Error(), Count: v.unjudged,
		Hint: "these messages are left out, although they may be meant",
	}}
}

// newView makes a view with what the options ask for, and nothing else: a
// table of groups that nobody sees costs as much as one that is shown.
func (q *queueRun) newView(snap *observe.Snapshot, workers int) *view {
	v := &view{snap: snap, sum: present.NewTally(present.ByQueue, snap.To)}
	if q.sel.IDs != nil {
		v.met = make(map[postfix.QueueID]bool)
	}
	switch {
	case q.ages != "" || q.by == string(present.ByAge) && !q.screen.json:
		v.ages = present.NewAgeTable(q.ages == "sender", snap.To)
	case q.by != "":
		v.by = present.NewTally(present.By(q.by), snap.To)
	default:
		v.list = []*present.Listing{present.NewListing(present.Order(q.sort), q.reverse, q.most(), snap.Len()/workers+1)}
		if !q.screen.json {
			v.why = present.NewTally(present.ByCause, snap.To)
			v.dest = present.NewTally(present.ByDestination, snap.To)
		}
	}
	return v
}

// collect goes through the snapshot once.
func (q *queueRun) collect(ctx context.Context, snap *observe.Snapshot) (*view, error) {
	match, err := q.sel.Compile(snap.To)
	if err != nil {
		return nil, err
	}
	if names := match.NeedsSpool(); len(names) > 0 && snap.Source == observe.FromShowq {
		return nil, &postfix.Error{
			Kind: postfix.CannotTell, Op: "select by", Object: strings.Join(names, ", "),
			Err: errors.New("only queue files tell, and this user may not read them"), Hint: "run it as root",
		}
	}
	named := make(map[postfix.QueueID]bool, len(q.sel.IDs))
	for _, id := range q.sel.IDs {
		named[id] = true
	}
	progress := q.screen.watchProgress(snap.Len(), present.Say("messages"))
	defer progress.end()
	all, err := present.Scan(ctx, snap,
		func(workers int) (*view, error) { return q.newView(snap, workers), nil },
		func(v *view, i int, m *postfix.Message) error {
			defer progress.step()
			if v.met != nil && named[m.ID] {
				v.met[postfix.QueueID(strings.Clone(string(m.ID)))] = true
			}
			meant, err := match.Match(m, func() ([]plan.Header, error) { return q.op.Headers(ctx, snap, m) })
			if err != nil {
				return v.unknown(ctx, err)
			}
			if meant {
				v.add(i, m)
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	for _, other := range all[1:] {
		all[0].merge(other)
	}
	return all[0], nil
}

// unknown notes a message that could not be judged. Any other error, also one
// of the expression itself, ends the scan.
func (v *view) unknown(ctx context.Context, err error) error {
	if ctx.Err() != nil || kindOf(err) != postfix.CannotTell {
		return err
	}
	if v.unjudged++; v.judgeErr == nil {
		v.judgeErr = err
	}
	return nil
}

func (v *view) add(i int, m *postfix.Message) {
	v.sum.Add(m)
	for _, t := range []*present.Tally{v.by, v.why, v.dest} {
		if t != nil {
			t.Add(m)
		}
	}
	if v.ages != nil {
		v.ages.Add(m)
	}
	if v.list != nil {
		v.list[0].Add(i, m)
	}
}

func (v *view) merge(other *view) {
	v.sum.Merge(other.sum)
	for _, pair := range [][2]*present.Tally{{v.by, other.by}, {v.why, other.why}, {v.dest, other.dest}} {
		if pair[0] != nil {
			pair[0].Merge(pair[1])
		}
	}
	if v.ages != nil {
		v.ages.Merge(other.ages)
	}
	v.list = append(v.list, other.list...)
	for id := range other.met {
		v.met[id] = true
	}
	v.unjudged += other.unjudged
	if v.judgeErr == nil {
		v.judgeErr = other.judgeErr
	}
}
