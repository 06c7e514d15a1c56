package probe

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// settingsPatience is how long postconf alone may take: it waits for a main.cf
// that was changed this second to come to rest.
const settingsPatience = 4 * time.Second

// askSettings asks postconf for the parameters that rules need, as they hold
// for the service "smtp unix", which delivers: an "-o" of master.cf counts more
// than main.cf. What running processes use may be older; that is a matter of
// their start times, not of the configuration.
func askSettings(ctx context.Context, in postfix.Instance) (observe.Settings, []observe.Gap) {
	failed := func(what string, err error) []observe.Gap {
		return []observe.Gap{{Source: "settings", Object: what, Text: err.Error(), Hint: "run: postconf -c " + in.ConfigDir + " -n"}}
	}
	ctx, cancel := context.WithTimeout(ctx, settingsPatience)
	defer cancel()
	dir, err := commandDir(in.CommandDir)
	if err != nil {
		return observe.Settings{}, failed("main.cf", err)
	}
	main, err := run(ctx, exec.CommandContext(ctx, filepath.Join(dir, "postconf"), "-c", in.ConfigDir, "-x",
		"compatibility_level", "inet_protocols", "mail_version", "message_size_limit", "qmgr_message_active_limit", "queue_minfree",
		"smtp_bind_address", "smtp_bind_address6", "smtp_helo_name"))
	if err != nil {
		return observe.Settings{}, failed("main.cf", err)
	}
	var gaps []observe.Gap
	services, err := run(ctx, exec.CommandContext(ctx, filepath.Join(dir, "postconf"), "-c", in.ConfigDir, "-M"))
	if err != nil {
		gaps = append(gaps, failed("master.cf", err)...)
	}
	own, err := run(ctx, exec.CommandContext(ctx, filepath.Join(dir, "postconf"), "-c", in.ConfigDir, "-x", "-P"))
	if err != nil {
		gaps = append(gaps, failed("master.cf", err)...)
	}
	settings, more := decodeSettings(string(main), string(services), string(own))
	return settings, append(gaps, more...)
}

// decodeSettings reads what postconf prints for main.cf, for the services of
// master.cf and for their own parameters.
func decodeSettings(main, services, own string) (observe.Settings, []observe.Gap) {
	p := make(parameters)
	read := func(text, prefix string) {
		for line := range strings.SplitSeq(text, "\n") {
			name, value, ok := strings.Cut(line, " =")
			if name, ours := strings.CutPrefix(name, prefix); ok && ours {
				p[name] = strings.TrimSpace(value)
			}
		}
	}
	read(main, "")
	read(own, "smtp/unix/")
	s := observe.Settings{
		Known:         true,
		InetProtocols: p["inet_protocols"], BindAddress: p["smtp_bind_address"], BindAddress6: p["smtp_bind_address6"],
		HeloName: p["smtp_helo_name"], SMTPChroot: smtpChroot(services, p["mail_version"], p["compatibility_level"]),
	}
	gaps := p.numbers(&s)
	return s, gaps
}

// numbers reads the parameters that count something. One that cannot be read
// is a gap; Postfix itself would not start with it.
func (p parameters) numbers(s *observe.Settings) []observe.Gap {
	var gaps []observe.Gap
	number := func(name string) int64 {
		n, err := strconv.ParseInt(p[name], 10, 64)
		if err != nil {
			gaps = append(gaps, observe.Gap{Source: "settings", Object: name, Text: fmt.Sprintf("%q is no number", p[name])})
		}
		return n
	}
	s.ActiveLimit = int(number("qmgr_message_active_limit"))
	s.MinFree = number("queue_minfree")
	s.MessageSizeLimit = number("message_size_limit")
	return gaps
}

// smtpChroot says whether the service "smtp unix" runs in the jail. Where
// master.cf leaves it open it does so before Postfix 3.0, and after it at
// compatibility level 0 (master/master_ent.c).
func smtpChroot(services, version, level string) bool {
	for line := range strings.SplitSeq(services, "\n") {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] != "smtp" || f[1] != "unix" {
			continue
		}
		if f[4] != "-" {
			return f[4] == "y"
		}
		return major(version) < 3 || major(level) < 1
	}
	return false
}

func major(version string) int {
	first, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 3 // of today's releases
	}
	return n
}
