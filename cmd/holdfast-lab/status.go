package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/lab"
	"holdfast/lab/world"
)

// status is what "status -o json" prints.
type status struct {
	lab.Info
	Tree   string            `json:"tree"` // the lab's file tree, from outside
	Queues []instanceStatus  `json:"queues"`
	Faults []lab.ActiveFault `json:"faults"`
	World  world.Status      `json:"world"`
}

type instanceStatus struct {
	Instance string         `json:"instance"`
	Running  bool           `json:"running"`
	Messages map[string]int `json:"messages"`
	Problem  string         `json:"problem,omitempty"` // why the queue could not be read
}

func newStatus(s *screen) *cobra.Command {
	return &cobra.Command{
		Use: "status NAME", Short: "Show a lab: instances, queues, faults, the world",
		Example: "  holdfast-lab status jam\n  holdfast-lab status jam -o json",
		Args:    need(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(args[0])
			if err != nil {
				return err
			}
			st, err := look(cmd.Context(), l)
			if err != nil {
				return err
			}
			return s.show(st, st.print)
		},
	}
}

// look reads what it can: in a lab where Postfix or its spool is broken, that is a part of the status.
func look(ctx context.Context, l *lab.Lab) (status, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	st := status{Info: l.Info, Tree: l.HostPath("/")}
	var err error
	if st.Faults, err = l.Faults(); err != nil {
		return st, err
	}
	if st.World, err = l.World().Status(ctx); err != nil {
		return st, err
	}
	for _, in := range l.Instances {
		one := instanceStatus{Instance: in.Name}
		if one.Running, err = l.Running(ctx, in.Name); err != nil {
			return st, err
		}
		list, err := l.Queue(ctx, in.Name)
		if err != nil {
			one.Problem = err.Error()
		}
		one.Messages = lab.Counts(list)
		st.Queues = append(st.Queues, one)
	}
	return st, nil
}

func (st status) print(w io.Writer) {
	fmt.Fprintf(w, "lab %s, up since %s\nfile tree  %s\ndirectory  %s\n\n", st.Name, st.Since.Local().Format(time.DateTime), st.Tree, st.Dir)
	rows := [][]string{{"INSTANCE", "POSTFIX", "INCOMING", "ACTIVE", "DEFERRED", "HOLD"}}
	for _, q := range st.Queues {
		running := "stopped"
		if q.Running {
			running = "runs"
		}
		row := []string{q.Instance, running}
		for _, queue := range []string{"incoming", "active", "deferred", "hold"} {
			row = append(row, fmt.Sprint(q.Messages[queue]))
		}
		rows = append(rows, append(row, q.Problem))
	}
	table(w, rows)
	if len(st.Faults) > 0 {
		rows = [][]string{{"FAULT", "SINCE", "NAME", "PARAMETERS"}}
		for _, f := range st.Faults {
			var params []string
			for name, value := range f.Params {
				if value != "" {
					params = append(params, name+"="+value)
				}
			}
			slices.Sort(params)
			rows = append(rows, []string{fmt.Sprint(f.ID), f.Since.Local().Format(time.TimeOnly), f.Name, strings.Join(params, " ")})
		}
		fmt.Fprintln(w)
		table(w, rows)
	}
	rows = [][]string{{"PEER", "KIND", "LISTENING"}}
	for _, p := range st.World.Peers {
		listening := strings.Join(p.Listening, " ")
		if listening == "" {
			listening = "down"
		}
		rows = append(rows, []string{p.Name, p.Kind, listening})
	}
	fmt.Fprintln(w)
	table(w, rows)
}
