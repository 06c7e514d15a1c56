package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"holdfast/observe"
	"holdfast/postfix"
)

// Instances finds the Postfix instances of this host: those with the given
// configuration directories, or, where none is given, all that postmulti
// lists. commandDir replaces the search for Postfix's commands where it is not
// empty. An instance whose configuration cannot be read is a gap while there
// is another one; where none is left, it is the error.
func Instances(ctx context.Context, commandDir string, configDirs []string) ([]postfix.Instance, []observe.Gap, error) {
	f, err := newFinder(commandDir)
	if err != nil {
		return nil, nil, err
	}
	listed := make([]listedInstance, 0, len(configDirs))
	for _, dir := range configDirs {
		if err := checkConfigDir(dir); err != nil {
			return nil, nil, err
		}
		listed = append(listed, listedInstance{dir: filepath.Clean(dir), enabled: true})
	}
	var gaps []observe.Gap
	if len(configDirs) == 0 {
		if listed, err = f.list(ctx); err != nil {
			gaps = append(gaps, observe.Gap{Source: "postmulti", Text: err.Error(), Hint: "name the instances with -c DIR"})
			listed = []listedInstance{{dir: defaultConfigDir, enabled: true}}
		}
	}
	var found []postfix.Instance
	var firstErr error
	for _, l := range listed {
		in, err := f.instance(ctx, l)
		if err != nil {
			firstErr = errors.Join(firstErr, err)
			gaps = append(gaps, observe.Gap{Source: "postconf", Object: l.dir, Text: err.Error(), Hint: "run: postconf -c " + l.dir + " -n"})
			continue
		}
		found = append(found, in)
	}
	if len(found) == 0 {
		return nil, gaps, &postfix.Error{
			Kind: postfix.CannotTell, Op: "read the Postfix configuration in", Object: listed[0].dir, Err: firstErr,
			Hint: "correct main.cf, then check it with: postconf -c " + listed[0].dir + " -n",
		}
	}
	distinguish(found)
	return found, gaps, nil
}

const defaultConfigDir = "/etc/postfix"

// checkConfigDir catches a mistyped -c before Postfix words it as a missing
// main.cf.
func checkConfigDir(dir string) error {
	e := &postfix.Error{Kind: postfix.Usage, Op: "use configuration directory", Object: strconv.Quote(dir), Hint: "-c takes the directory that holds main.cf, as Postfix's own commands do; postmulti -l lists them"}
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		e.Err = err
	case !st.IsDir():
		e.Err = errors.New("it is not a directory")
	case !filepath.IsAbs(dir):
		e.Err = errors.New("it is not an absolute path")
	default:
		return nil
	}
	return e
}

// distinguish makes names unique: two instances that never got a
// multi_instance_name are told apart by their directories.
func distinguish(found []postfix.Instance) {
	count := make(map[string]int)
	for _, in := range found {
		count[in.Name]++
	}
	for i := range found {
		if count[found[i].Name] > 1 {
			found[i].Name = found[i].ConfigDir
		}
	}
}

// finder asks Postfix's own commands.
type finder struct{ dir string }

func newFinder(override string) (finder, error) {
	dir, err := commandDir(override)
	if err != nil {
		return finder{}, &postfix.Error{Kind: postfix.CannotTell, Op: "find Postfix", Err: err, Hint: "holdfast runs on the relay itself; install Postfix, or run it where Postfix is"}
	}
	return finder{dir}, nil
}

type listedInstance struct {
	dir     string
	enabled bool
}

// list returns what postmulti -l prints: name, group, enabled, directory.
func (f finder) list(ctx context.Context) ([]listedInstance, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := run(ctx, exec.CommandContext(ctx, filepath.Join(f.dir, "postmulti"), "-l"))
	if err != nil {
		return nil, err
	}
	var list []listedInstance
	for line := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		// A directory with blanks is the rest of the line, not the fourth word.
		at := strings.Index(line, fields[3])
		list = append(list, listedInstance{dir: strings.TrimSpace(line[at:]), enabled: fields[2] == "y"})
	}
	return list, nil
}

func (f finder) instance(ctx context.Context, l listedInstance) (postfix.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := run(ctx, exec.CommandContext(ctx, filepath.Join(f.dir, "postconf"), append([]string{
		"-c", l.dir, "-x",
		"bounce_queue_lifetime", "command_directory", "daemon_directory", "data_directory", "default_transport",
		"enable_long_queue_ids", "hash_queue_depth", "hash_queue_names", "mail_owner", "mail_version", "maillog_file",
		"maximal_backoff_time", "maximal_queue_lifetime", "minimal_backoff_time", "multi_instance_name",
		"myhostname", "queue_directory", "queue_run_delay", "relay_domains", "relay_transport", "relayhost",
		"setgid_group", "syslog_name", "transport_maps",
	}, postfix.AnewParameters()...)...))
	if err != nil {
		return postfix.Instance{}, err
	}
	return decodeInstance(l, string(out))
}

// decodeInstance reads "name = value" lines.
func decodeInstance(l listedInstance, text string) (postfix.Instance, error) {
	p := make(parameters)
	for line := range strings.SplitSeq(text, "\n") {
		if name, value, ok := strings.Cut(line, " ="); ok {
			p[name] = strings.TrimSpace(value)
		}
	}
	depth, err := strconv.Atoi(p["hash_queue_depth"])
	if err != nil {
		return postfix.Instance{}, fmt.Errorf("hash_queue_depth is %q, not a number", p["hash_queue_depth"])
	}
	in := postfix.Instance{
		Name: p["multi_instance_name"], ConfigDir: l.dir, Enabled: l.enabled,
		QueueDir: p["queue_directory"], DataDir: p["data_directory"],
		CommandDir: p["command_directory"], DaemonDir: p["daemon_directory"],
		Version: p["mail_version"], Hostname: p["myhostname"],
		MailOwner: p["mail_owner"], SetgidGroup: p["setgid_group"],
		LongIDs:      p["enable_long_queue_ids"] == "yes",
		HashedQueues: p.words("hash_queue_names"), HashDepth: depth,
		Relayhost: p["relayhost"], DefaultTransport: p["default_transport"], RelayTransport: p["relay_transport"],
		MailLogFile: p["maillog_file"], SyslogName: p["syslog_name"],
		RelayDomains: p.words("relay_domains"), TransportMaps: p.words("transport_maps"),
	}
	for _, name := range postfix.AnewParameters() {
		if p[name] != "" {
			in.Anew = append(in.Anew, name)
		}
	}
	if in.Name == "" {
		in.Name = filepath.Base(l.dir)
	}
	if in.QueueDir == "" || !filepath.IsAbs(in.QueueDir) {
		return postfix.Instance{}, fmt.Errorf("queue_directory is %q, not an absolute path", in.QueueDir)
	}
	for name, to := range map[string]*time.Duration{
		"maximal_queue_lifetime": &in.MaxLifetime, "bounce_queue_lifetime": &in.BounceLifetime,
		"minimal_backoff_time": &in.MinBackoff, "maximal_backoff_time": &in.MaxBackoff, "queue_run_delay": &in.QueueRunDelay,
	} {
		if *to, err = parseTime(p[name], name); err != nil {
			return postfix.Instance{}, err
		}
	}
	return in, nil
}

type parameters map[string]string

// words splits a list the way Postfix does: at commas and white space.
func (p parameters) words(name string) []string {
	return strings.FieldsFunc(p[name], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// parseTime reads a time value of main.cf: a number and s, m, h, d or w. A bare
// number counts in the parameter's own unit, days for lifetimes and seconds
// for the rest (postconf(5)).
func parseTime(value, name string) (time.Duration, error) {
	unit := time.Second
	if strings.HasSuffix(name, "_lifetime") {
		unit = 24 * time.Hour
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	number := value
	if n := len(value); n > 0 {
		if u, ok := units[value[n-1]|0x20]; ok {
			unit, number = u, value[:n-1]
		}
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s is %q, not a time", name, value)
	}
	return time.Duration(n) * unit, nil
}
