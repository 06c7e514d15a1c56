package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// primaryName is how postmulti and syslog_name call an instance without a name of its own.
const primaryName = "postfix"

// instance is one Postfix instance of a lab.
type instance struct {
	Name     string            `json:"name"`   // as multi_instance_name: "postfix", or "postfix-" and a name
	Number   int               `json:"number"` // 0 is the primary
	Address  string            `json:"address"`
	Params   map[string]string `json:"params,omitempty"`
	Services []string          `json:"services,omitempty"`
	Spool    Storage           `json:"spool,omitzero"`
}

func (in instance) configDir() string { return "/etc/" + in.Name }
func (in instance) spoolDir() string  { return "/var/spool/" + in.Name }
func (in instance) dataDir() string   { return "/var/lib/" + in.Name }
func (in instance) loopback() string  { return fmt.Sprintf("127.0.0.%d", in.Number+1) }
func (in instance) address6() string  { return fmt.Sprintf("2001:db8::%x", in.Number+1) }

// logFile is one per instance: two postlogd processes must not write, and rotate, one file.
func (in instance) logFile() string {
	if in.Number == 0 {
		return "/var/log/mail.log"
	}
	return "/var/log/mail-" + strings.TrimPrefix(in.Name, primaryName+"-") + ".log"
}

func instanceAddress(number int) string { return fmt.Sprintf("192.0.2.%d", number+1) }

func instanceInfos(s spec) []InstanceInfo {
	infos := make([]InstanceInfo, 0, len(s.Instances))
	for _, in := range s.Instances {
		infos = append(infos, InstanceInfo{
			Name: in.Name, ConfigDir: in.configDir(), SpoolDir: in.spoolDir(),
			LogFile: in.logFile(), Address: in.Address, Storage: in.Spool.String(),
		})
	}
	return infos
}

// params are the main.cf parameters of an instance: Debian's defaults, what makes a relay without local users of it,
// and last what the caller asked for.
func (s spec) params(in instance) map[string]string {
	p := map[string]string{
		"compatibility_level":            "3.6",
		"myhostname":                     s.Hostname,
		"smtpd_banner":                   "$myhostname ESMTP $mail_name (Debian/GNU)",
		"biff":                           "no",
		"append_dot_mydomain":            "no",
		"readme_directory":               "no",
		"recipient_delimiter":            "+",
		"queue_directory":                in.spoolDir(),
		"data_directory":                 in.dataDir(),
		"maillog_file":                   in.logFile(),
		"inet_interfaces":                fmt.Sprintf("%s, %s, [%s]", in.loopback(), in.Address, in.address6()),
		"inet_protocols":                 "all",
		"mynetworks":                     relayNetworks,
		"smtpd_relay_restrictions":       "permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
		"smtpd_authorized_xclient_hosts": relayNetworks,
		"smtp_tls_security_level":        "may",
		// A relay: no mailbox here. Mail to the machine itself fails at once instead of meeting the host's users.
		"mydestination":   "",
		"local_transport": "error:no local delivery on this relay",
		"alias_maps":      "",
		"alias_database":  "",
		"notify_classes":  "",
		// in_flow_delay slows intake when mail arrives faster than it leaves, which is the very state a lab wants to
		// reach quickly.
		"in_flow_delay": "0s",
	}
	if s.LongIDs {
		p["enable_long_queue_ids"] = "yes"
	}
	if in.Number > 0 {
		p["multi_instance_name"] = in.Name
		p["multi_instance_enable"] = "yes"
		p["smtp_bind_address"] = in.Address
		p["smtp_bind_address6"] = in.address6()
		p["syslog_name"] = in.Name
	} else if len(s.Instances) > 1 {
		var dirs []string
		for _, other := range s.Instances[1:] {
			dirs = append(dirs, other.configDir())
		}
		p["multi_instance_wrapper"] = "${command_directory}/postmulti -p --"
		p["multi_instance_enable"] = "yes"
		p["multi_instance_directories"] = strings.Join(dirs, " ")
	}
	maps.Copy(p, in.Params)
	return p
}

// installPostfix writes the configuration of every instance and fills the chroots. It runs as PID 1 of the lab.
func installPostfix(s spec) error {
	stock, err := os.ReadFile("/usr/share/postfix/master.cf.dist")
	if err != nil {
		return fmt.Errorf("read Debian's master.cf: %w", err)
	}
	for _, in := range s.Instances {
		if err := writeConfig(s, in, string(stock)); err != nil {
			return fmt.Errorf("instance %q: %w", in.Name, err)
		}
	}
	for _, in := range s.Instances {
		name := "-"
		if in.Number > 0 {
			name = in.Name
		}
		// Debian's own script, as its service unit runs it: etc/resolv.conf and the NSS libraries of the chroot. It
		// decides for itself whether anything is chrooted.
		if err := tool("/usr/lib/postfix/configure-instance.sh", name); err != nil {
			return fmt.Errorf("prepare chroot of %q: %w", in.Name, err)
		}
		if err := settleDisk(in.spoolDir()); err != nil {
			return err
		}
	}
	return nil
}

// settleDisk writes out what the file system of dir still holds in memory. On a real host the chroot was filled long
// ago; a fault that makes the disk fail in a lab's first seconds must not take resolv.conf away.
func settleDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync spool: %w", err)
	}
	return nil
}

func writeConfig(s spec, in instance, stockMaster string) error {
	params := s.params(in)
	var main strings.Builder
	for _, name := range slices.Sorted(maps.Keys(params)) {
		fmt.Fprintf(&main, "%s = %s\n", name, params[name])
	}
	master := stockMaster
	if s.NoChroot {
		master = withoutChroot(master)
	}
	master = strings.TrimRight(master, "\n") + "\n" + strings.Join(append(in.Services, ""), "\n")
	if err := os.MkdirAll(in.configDir(), 0o755); err != nil {
		return fmt.Errorf("create configuration directory: %w", err)
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		return fmt.Errorf("find Postfix's user: %w", err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return fmt.Errorf("read uid of Postfix's user: %w", err)
	}
	if err := os.MkdirAll(in.dataDir(), 0o700); err != nil {
		return fmt.Errorf("create data directory: %w", err)
	}
	return errors.Join(
		os.Chown(in.dataDir(), uid, -1),
		os.WriteFile(filepath.Join(in.configDir(), "main.cf"), []byte(main.String()), 0o644),
		os.WriteFile(filepath.Join(in.configDir(), "master.cf"), []byte(master), 0o644))
}

// withoutChroot sets the fifth column of every service to "n". Lines that begin with white space continue a service.
func withoutChroot(master string) string {
	lines := strings.Split(master, "\n")
	for i, line := range lines {
		fields := strings.Fields(line)
		if len(fields) < 8 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			continue
		}
		fields[4] = "n"
		lines[i] = strings.Join(fields, "\t")
	}
	return strings.Join(lines, "\n")
}

// startPostfix starts every instance. Without -c the command goes to all of them.
func startPostfix(s spec) error {
	if s.NoStart {
		return nil
	}
	cmd := exec.Command("postfix", "start")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run postfix start: %w: %s: %s", err, strings.TrimSpace(string(out)), tail(s.Instances[0].logFile(), 1000))
	}
	return nil
}

// Postconf returns the value of a main.cf parameter of an instance, expanded.
func (l *Lab) Postconf(ctx context.Context, name, param string) (string, error) {
	in, err := l.instance(name)
	if err != nil {
		return "", err
	}
	res, err := l.must(ctx, "postconf", "-c", in.configDir(), "-xh", param)
	return strings.TrimSuffix(res.Stdout, "\n"), err
}

// SetParams changes main.cf parameters of an instance ("name=value") and reloads it, if it runs.
func (l *Lab) SetParams(ctx context.Context, name string, settings ...string) error {
	in, err := l.instance(name)
	if err != nil {
		return err
	}
	if _, err := l.must(ctx, append([]string{"postconf", "-c", in.configDir(), "-e"}, settings...)...); err != nil {
		return err
	}
	if running, err := l.Running(ctx, name); err != nil || !running {
		return err
	}
	return l.Postfix(ctx, name, "reload")
}

// Postfix runs "postfix start", "stop", "reload", "abort" … on one instance.
func (l *Lab) Postfix(ctx context.Context, name, verb string) error {
	in, err := l.instance(name)
	if err != nil {
		return err
	}
	_, err = l.must(ctx, "postfix", "-c", in.configDir(), verb)
	return err
}

// Running tells whether the master of an instance runs. "postfix status" would not do: it takes any failure to open the
// lock file for a master that holds it, and so calls every instance on a read-only spool running (master/master.c, -t).
func (l *Lab) Running(_ context.Context, name string) (bool, error) {
	found, err := l.PostfixProcesses(name, "master")
	return len(found) > 0, err
}

// must is Exec for commands whose failure is the caller's failure.
func (l *Lab) must(ctx context.Context, argv ...string) (Result, error) {
	res, err := l.Exec(ctx, argv...)
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("run %q in lab %q: exit %d: %s", strings.Join(argv, " "), l.Name, res.Code, strings.TrimSpace(res.Stderr))
	}
	return res, err
}
