package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/lab"
)

func newRoot(s *screen) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast-lab",
		Short: "Real Postfix relays in a box, to be broken at will",
		Long: `holdfast-lab starts a real Postfix with a world of its own around it (DNS, mail providers, milters),
inside namespaces that it makes and removes. The mail system of this machine is never touched.
It needs root, and Debian's postfix package installed (not running): make setup.`,
		Example: `  holdfast-lab up --name jam --scenario mixed-jam
  holdfast-lab exec jam -- postqueue -p
  holdfast-lab fault jam net.block-smtp mode=reset
  holdfast-lab cure jam all
  holdfast-lab down jam`,
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if s.format != "text" && s.format != "json" {
				return usageError{fmt.Errorf("output %q is unknown; use text or json", s.format)}
			}
			return nil
		},
	}
	root.PersistentFlags().StringVarP(&s.format, "output", "o", "text", "text or json")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newUp(s), newDown(s), newExec(), newInject(s), newFault(s), newCure(s), newStatus(s), newList(s),
		newScenarios(s), newAccount(s), newShapes(s))
	return root
}

// need is cobra's argument check with our exit status.
func need(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see: %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}

// upOptions are the flags of up.
type upOptions struct {
	name, scenario, spool, hostname string
	instances, params               []string
	chroot, longIDs, noSteps        bool
}

func newUp(s *screen) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a lab, and play a scenario in it",
		Example: `  holdfast-lab up --name small
  holdfast-lab up --name jam --scenario mixed-jam
  holdfast-lab up --scenario ./my-incident.json --spool ext4:64M:5000 --long-ids
  holdfast-lab up --name two --instances out,in --chroot=false -p queue_run_delay=30s`,
		Args: need(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd.Context(), s, o, cmd.Flags().Changed) },
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the lab; the scenario's, or made up")
	f.StringVar(&o.scenario, "scenario", "", "scenario to play: a name (see: holdfast-lab scenarios) or a file")
	f.StringVar(&o.spool, "spool", "", "storage of the spool: plain, tmpfs:SIZE[:INODES], ext4:SIZE[:INODES], xfs:SIZE")
	f.StringVar(&o.hostname, "hostname", "", "machine name inside (relay.example.net)")
	f.StringSliceVar(&o.instances, "instances", nil, "names of further Postfix instances")
	f.StringArrayVarP(&o.params, "param", "p", nil, "main.cf parameter NAME=VALUE of the primary instance; may be repeated")
	f.BoolVar(&o.chroot, "chroot", true, "run Postfix's daemons in a chroot, as Debian does")
	f.BoolVar(&o.longIDs, "long-ids", false, "use long queue IDs")
	f.BoolVar(&o.noSteps, "no-steps", false, "only set up what the scenario needs; let nothing happen")
	return cmd
}

// options are the scenario's, where the flags do not say otherwise.
func (o upOptions) options(base lab.Options, changed func(string) bool) (lab.Options, error) {
	if o.name != "" {
		base.Name = o.name
	}
	if o.hostname != "" {
		base.Hostname = o.hostname
	}
	if o.spool != "" {
		storage, err := lab.ParseStorage(o.spool)
		if err != nil {
			return base, usageError{err}
		}
		base.Spool = storage
	}
	if changed("chroot") {
		base.NoChroot = !o.chroot
	}
	if changed("long-ids") {
		base.LongIDs = o.longIDs
	}
	for _, name := range o.instances {
		base.Instances = append(base.Instances, lab.InstanceOptions{Name: name})
	}
	for _, p := range o.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			return base, usageError{fmt.Errorf("parameter %q is not NAME=VALUE", p)}
		}
		if base.Params == nil {
			base.Params = map[string]string{}
		}
		base.Params[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return base, nil
}

func up(ctx context.Context, s *screen, o upOptions, changed func(string) bool) error {
	var scenario lab.Scenario
	var err error
	if o.scenario != "" {
		if scenario, err = lab.LoadScenario(o.scenario); err != nil {
			return err
		}
		if o.name == "" {
			o.name = scenario.Name
		}
	}
	options, err := o.options(scenario.Options, changed)
	if err != nil {
		return err
	}
	l, err := lab.Start(ctx, options)
	if err != nil {
		return err
	}
	if !o.noSteps {
		if err := l.Play(ctx, scenario.Steps, func(what string) { s.say("%s: %s", l.Name, what) }); err != nil {
			return errors.Join(err, l.Down())
		}
	}
	// Until here the lab dies with this process, so that an interrupted start leaves nothing.
	if err := l.Detach(); err != nil {
		return errors.Join(err, l.Down())
	}
	return s.show(l.Info, func(w io.Writer) {
		fmt.Fprintf(w, "lab %s is up\n", l.Name)
		table(w, instanceRows(l.Info))
		fmt.Fprintf(w, "\nlook inside:  holdfast-lab exec %s -- postqueue -p\nend it:       holdfast-lab down %s\n", l.Name, l.Name)
	})
}

func instanceRows(info lab.Info) [][]string {
	rows := [][]string{{"INSTANCE", "ADDRESS", "SPOOL", "STORAGE", "LOG"}}
	for _, in := range info.Instances {
		rows = append(rows, []string{in.Name, in.Address, in.SpoolDir, in.Storage, in.LogFile})
	}
	return rows
}

func newDown(s *screen) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "down NAME...",
		Short:   "End labs; nothing of them is left",
		Example: "  holdfast-lab down jam\n  holdfast-lab down --all",
		Args:    need(cobra.ArbitraryArgs),
		RunE: func(_ *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return usageError{errors.New("name the labs to end, or say --all")}
			}
			if all {
				infos, err := lab.List()
				if err != nil {
					return err
				}
				for _, info := range infos {
					names = append(names, info.Name)
				}
			}
			for _, name := range names {
				l, err := lab.Open(name)
				if err != nil {
					return err
				}
				if err := l.Down(); err != nil {
					return err
				}
				s.say("lab %s is down", name)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end every lab on this machine")
	return cmd
}

func newExec() *cobra.Command {
	var side, dir string
	var uid, gid int
	cmd := &cobra.Command{
		Use:   "exec NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a command inside a lab, as root, on the relay's side",
		Example: `  holdfast-lab exec jam -- postqueue -p
  holdfast-lab exec jam -- bash
  holdfast-lab exec --side world jam -- nft list ruleset`,
		Args: need(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, argv := args[0], args[1:]
			if argv[0] == "--" { // pflag stops at the name and so leaves the dashes
				argv = argv[1:]
			}
			l, err := lab.Open(name)
			if err != nil {
				return err
			}
			// At a terminal Ctrl-C goes to the command as well; what it means there is the command's business.
			signal.Ignore(os.Interrupt)
			res, err := l.ExecWith(context.WithoutCancel(cmd.Context()), lab.ExecOptions{
				Side: lab.Side(side), Dir: dir, UID: uid, GID: gid,
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Foreground: true,
			}, argv...)
			if err != nil {
				return err
			}
			if res.Code != 0 {
				return exitStatus(res.Code)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&side, "side", "relay", "network to run in: relay or world")
	cmd.Flags().StringVar(&dir, "dir", "/", "working directory inside")
	cmd.Flags().IntVar(&uid, "uid", 0, "user to run as")
	cmd.Flags().IntVar(&gid, "gid", 0, "group to run as")
	cmd.Flags().SetInterspersed(false) // what follows the name belongs to the command
	return cmd
}

func newInject(s *screen) *cobra.Command {
	var load lab.Load
	var side string
	cmd := &cobra.Command{
		Use:   "inject NAME",
		Short: "Send mail into a lab; each recipient has an address of its own",
		Example: `  holdfast-lab inject jam --count 500 --domain alpha.example
  holdfast-lab inject jam --count 10 --domain alpha.example --recipients 100 --shape dsn --shape hostile
  holdfast-lab inject jam --count 5 --domain alpha.example --via sendmail -o json`,
		Args: need(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(args[0])
			if err != nil {
				return err
			}
			load.Side = lab.Side(side)
			injected, err := l.Inject(cmd.Context(), load)
			counts := map[string]int{}
			for _, in := range injected {
				counts[in.Fate]++
			}
			return errors.Join(err, s.show(injected, func(w io.Writer) {
				fmt.Fprintf(w, "recipients: %d accepted, %d refused, %d unknown\n", counts[lab.Accepted], counts[lab.Refused], counts[lab.Unknown])
			}))
		},
	}
	f := cmd.Flags()
	f.IntVar(&load.Count, "count", 1, "messages")
	f.StringSliceVar(&load.Domains, "domain", nil, "recipient domains, in turn (required)")
	f.StringSliceVar(&load.Shapes, "shape", nil, "shapes, in turn; see: holdfast-lab shapes")
	f.IntVar(&load.Recipients, "recipients", 1, "recipients of each message")
	f.StringVar(&load.Sender, "sender", "", "envelope sender; made up for each message unless set")
	f.IntVar(&load.Size, "size", 1000, "bytes of each message, about")
	f.StringVar(&load.Via, "via", "smtp", "way in: smtp or sendmail")
	f.StringVar(&side, "side", "world", "where SMTP comes from: world (a customer) or relay")
	f.StringVar(&load.Instance, "instance", "", "Postfix instance")
	f.IntVar(&load.Connections, "connections", 8, "sessions at the same time")
	f.StringVar(&load.Client, "client", "", "client address to claim by XCLIENT")
	f.StringVar(&load.SASLUser, "sasl-user", "", "authenticated user to claim by XCLIENT")
	return cmd
}

func newFault(s *screen) *cobra.Command {
	var list bool
	cmd := &cobra.Command{
		Use:   "fault NAME FAULT [PARAMETER=VALUE...]",
		Short: "Break something in a lab",
		Example: `  holdfast-lab fault --list
  holdfast-lab fault jam net.block-smtp mode=reset
  holdfast-lab fault jam process.stop name=qmgr
  holdfast-lab fault jam world.dns domain=alpha.example kind=nxdomain`,
		Args: need(func(cmd *cobra.Command, args []string) error {
			if list {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.MinimumNArgs(2)(cmd, args)
		}),
		RunE: func(_ *cobra.Command, args []string) error {
			if list {
				return listFaults(s)
			}
			l, err := lab.Open(args[0])
			if err != nil {
				return err
			}
			params := lab.Params{}
			for _, arg := range args[2:] {
				name, value, ok := strings.Cut(arg, "=")
				if !ok {
					return usageError{fmt.Errorf("parameter %q is not NAME=VALUE", arg)}
				}
				params[name] = value
			}
			if err := l.Fault(args[1], params); err != nil {
				return err
			}
			s.say("broken: %s; mend it with: holdfast-lab cure %s %s", args[1], l.Name, args[1])
			return nil
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "say what can be broken, and with which parameters")
	return cmd
}

func listFaults(s *screen) error {
	kinds := lab.FaultKinds()
	return s.show(kinds, func(w io.Writer) {
		for _, k := range kinds {
			fmt.Fprintf(w, "%s: %s\n  cure: %s\n", k.Name, k.Summary, k.Cure)
			for _, p := range k.Params {
				note := p.Help
				if len(p.Choices) > 0 {
					note += " (" + strings.Join(p.Choices, ", ") + ")"
				}
				switch {
				case p.Required:
					note += " [required]"
				case p.Default != "":
					note += " [" + p.Default + "]"
				}
				fmt.Fprintf(w, "    %s=%s  %s\n", p.Name, strings.ToUpper(p.Type), note)
			}
		}
	})
}

func newCure(s *screen) *cobra.Command {
	return &cobra.Command{
		Use:     "cure NAME FAULT|NUMBER|all",
		Short:   "Mend what fault has broken, exactly",
		Example: "  holdfast-lab cure jam net.block-smtp\n  holdfast-lab cure jam 3\n  holdfast-lab cure jam all",
		Args:    need(cobra.ExactArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(args[0])
			if err != nil {
				return err
			}
			if err := l.Cure(args[1]); err != nil {
				return err
			}
			s.say("mended: %s", args[1])
			return nil
		},
	}
}

func newList(s *screen) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the labs that are up", Args: need(cobra.NoArgs),
		Example: "  holdfast-lab list\n  holdfast-lab list -o json",
		RunE: func(*cobra.Command, []string) error {
			infos, err := lab.List()
			if err != nil {
				return err
			}
			return s.show(infos, func(w io.Writer) {
				if len(infos) == 0 {
					s.say("no lab is up")
					return
				}
				rows := [][]string{{"LAB", "SINCE", "INSTANCES", "DIRECTORY"}}
				for _, info := range infos {
					rows = append(rows, []string{info.Name, info.Since.Local().Format("2006-01-02 15:04:05"), strconv.Itoa(len(info.Instances)), info.Dir})
				}
				table(w, rows)
			})
		},
	}
}

func newScenarios(s *screen) *cobra.Command {
	return &cobra.Command{
		Use: "scenarios", Short: "List the scenarios that come with the lab", Args: need(cobra.NoArgs),
		Example: "  holdfast-lab scenarios\n  holdfast-lab scenarios -o json > all.json",
		RunE: func(*cobra.Command, []string) error {
			list, err := lab.Scenarios()
			if err != nil {
				return err
			}
			return s.show(list, func(w io.Writer) {
				var rows [][]string
				for _, sc := range list {
					rows = append(rows, []string{sc.Name, sc.Summary})
				}
				table(w, rows)
			})
		},
	}
}

func newShapes(s *screen) *cobra.Command {
	return &cobra.Command{
		Use: "shapes", Short: "List the shapes of mail that inject can make", Args: need(cobra.NoArgs),
		Example: "  holdfast-lab shapes",
		RunE: func(*cobra.Command, []string) error {
			return s.show(lab.Shapes(), func(w io.Writer) {
				var rows [][]string
				for _, sh := range lab.Shapes() {
					rows = append(rows, []string{sh.Name, sh.Summary})
				}
				table(w, rows)
			})
		},
	}
}

func newAccount(s *screen) *cobra.Command {
	return &cobra.Command{
		Use: "account NAME", Short: "Say where every injected recipient is: ledger, queue, bounced, or lost",
		Example: "  holdfast-lab account jam\n  holdfast-lab account jam -o json",
		Args:    need(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(args[0])
			if err != nil {
				return err
			}
			a, err := l.Account(cmd.Context())
			if err != nil {
				return err
			}
			if err := s.show(a, func(w io.Writer) { fmt.Fprintln(w, a) }); err != nil {
				return err
			}
			if !a.Whole() {
				return errors.New("mail was lost, doubled or made up")
			}
			return nil
		},
	}
}
