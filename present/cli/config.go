package cli

import (
	"context"

	"github.com/spf13/cobra"

	"holdfast/config"
	"holdfast/present"
)

func (p *program) configCommand() *cobra.Command {
	return parent("config", groupKeep, "holdfast.toml: check, explain, sample",
		"The settings are in holdfast.toml: who may do what to mail, what has to come\nfirst, and how long copies are kept. Without a file each has its default.",
		p.configCheckCommand(), p.configExplainCommand(), p.configSampleCommand())
}

func (p *program) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "look for mistakes in the file", Args: cobra.NoArgs,
		Long:    "Reads the file as every other command does, and names the first mistake with\nits line.",
		Example: "  holdfast config check\n  holdfast config check --config ./holdfast.toml",
		RunE: p.run(func(context.Context, []string) error {
			l, err := p.loadConfig()
			if err != nil || p.screen.json {
				return p.configRecord(l, err)
			}
			if l.Path == "" {
				p.screen.Line(present.Say("There is no %s, and every setting has its default.", text(p.settings.ConfigFile)))
				return nil
			}
			p.screen.Line(present.Say("%s is in order: %s set.", text(l.Path), present.Plural(len(l.Lines), "setting is", "settings are")))
			return nil
		}),
	}
	p.describe(cmd, verb{exits: []int{exitDone, exitUsage}})
	return cmd
}

func (p *program) configExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain", Short: "each setting that holds, and where it came from", Args: cobra.NoArgs,
		Long:    "Shows every setting with the value that holds and where it was set. With -v it\nsays what each means.",
		Example: "  holdfast config explain\n  holdfast config explain -o json",
		RunE: p.run(func(context.Context, []string) error {
			l, err := p.loadConfig()
			if err != nil || p.screen.json {
				return p.configRecord(l, err)
			}
			t := &present.Table{Columns: []present.Column{{Title: present.Say("SETTING")}, {Title: present.Say("VALUE"), Least: 12}, {Title: present.Say("FROM")}}}
			for _, f := range l.Fields() {
				from := present.Say("default")
				if f.Line > 0 {
					from = present.Say("line %s", present.Count(f.Line))
				}
				t.Row(text(f.Key), text(f.Value), from)
				if p.screen.detail {
					t.Row(present.Say("  %s", text(f.Doc)))
				}
			}
			p.screen.Table(t)
			return nil
		}),
	}
	p.describe(cmd, verb{exits: []int{exitDone, exitUsage}})
	return cmd
}

func (p *program) configSampleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sample", Short: "print a file with every setting and what it means", Args: cobra.NoArgs,
		Long:    "Prints a file in which every setting stands with its default, as a comment.",
		Example: "  holdfast config sample > /etc/holdfast/holdfast.toml",
		RunE: p.run(func(context.Context, []string) error {
			_, err := p.screen.out.WriteString(config.Sample())
			return err
		}),
	}
	p.describe(cmd, verb{exits: []int{exitDone, exitUsage}})
	return cmd
}

func (p *program) loadConfig() (*config.Loaded, error) {
	return config.Load(p.settings.ConfigFile, p.settings.ConfigFile != config.DefaultPath)
}

func (p *program) configRecord(l *config.Loaded, err error) error {
	if err != nil {
		return err
	}
	return p.screen.Record(present.ConfigRecordOf(l))
}
