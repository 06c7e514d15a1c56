package cli

import (
	"context"
	"runtime/debug"

	"github.com/spf13/cobra"

	"holdfast/present"
)

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "print the version", GroupID: groupKeep, Args: cobra.NoArgs,
		Example: "  holdfast version\n  holdfast version -o json",
		RunE:    p.run(func(context.Context, []string) error { return p.version() }),
	}
	p.describe(cmd, verb{exits: []int{exitDone, exitUsage}})
	return cmd
}

// version tells what the Go toolchain stamped into the program. There is no
// variable to set at link time: a binary cannot claim a version that it was
// not built from.
func (p *program) version() error {
	r := present.VersionRecord{Envelope: present.Envelope{Schema: present.SchemaVersion}, Version: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		r.Go = info.GoVersion
		if info.Main.Version != "" {
			r.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				r.Revision = s.Value
			case "vcs.modified":
				r.Modified = s.Value == "true"
			}
		}
	}
	if p.screen.json {
		return p.screen.Record(&r)
	}
	words := present.Say("holdfast %s", present.Hostile(r.Version))
	if r.Revision != "" {
		words = present.Say("%s, revision %s", words, present.Hostile(r.Revision))
		if r.Modified {
			words = present.Say("%s with changes", words)
		}
	}
	p.screen.Line(present.Say("%s, %s", words, present.Hostile(r.Go)))
	return nil
}
