package agree

// What cannot be read, and what makes no sense, ends in one sentence that says
// what to do, in the exit code that was promised, and in JSON where JSON was
// asked for. Never in an empty list.

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"holdfast/lab"
)

// mistake is a command line, the circumstances, and how it must end.
type mistake struct {
	name string
	args []string
	as   lab.ExecOptions
	// before stands in front of the command: a shell in which something is
	// missing.
	before []string
	code   int
	says   []string
	prints string // on stdout, in text
}

func mistakes() []mistake {
	nobodyAtAll := lab.ExecOptions{UID: nobody, GID: nobody}
	// Only this process's view of the machine loses its Postfix.
	noPostfix := []string{"unshare", "--mount", "sh", "-c", `for d in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $d || exit 99; done; exec "$@"`, "sh"}
	return []mistake{
		{name: "no such configuration directory", args: []string{"-c", "/etc/nowhere", "queue"}, code: 2, says: []string{"/etc/nowhere", "no such file"}},
		{name: "configuration directory is a file", args: []string{"-c", "/etc/passwd", "queue"}, code: 2, says: []string{"/etc/passwd", "not a directory"}},
		{name: "main.cf does not parse", args: []string{"-c", "/etc/postfix-broken", "queue"}, code: 6, says: []string{"/etc/postfix-broken/main.cf", "line 3"}},
		{name: "no such queue directory", args: []string{"-c", "/etc/postfix-lost", "queue"}, code: 6, says: []string{"/var/spool/nowhere", "no such file", "queue_directory"}},
		{name: "no such queue directory, one message", args: []string{"-c", "/etc/postfix-lost", "show", "0123456789A"}, code: 6, says: []string{"/var/spool/nowhere", "no such file"}},
		{name: "unreadable spool", as: nobodyAtAll, args: []string{"queue"}, code: 6, says: []string{"permission denied", "postdrop"}},
		{name: "unreadable spool, one message", as: nobodyAtAll, args: []string{"show", "0123456789A"}, code: 6, says: []string{"permission denied"}},
		{name: "unknown ID", args: []string{"show", "0123456789A"}, code: 1, says: []string{"0123456789A", "delivered"}},
		{name: "unknown ID in a listing", args: []string{"queue", "--id", "0123456789A"}, code: 1, says: []string{"0123456789A", "delivered"}, prints: "Nothing matches"},
		{name: "no ID", args: []string{"show"}, code: 2, says: []string{"no ID", "holdfast queue"}},
		{name: "invalid ID", args: []string{"show", "../../etc/passwd"}, code: 2, says: []string{"../../etc/passwd", "queue ID"}},
		{name: "invalid ID in a listing", args: []string{"queue", "--id", "3F2A 1"}, code: 2, says: []string{"3F2A 1", "queue ID"}},
		{name: "an expression cut short", args: []string{"queue", "--where", "size >"}, code: 2, says: []string{"size >"}},
		{name: "an expression with an unknown field", args: []string{"queue", "--where", "colour == 'red'"}, code: 2, says: []string{"colour"}},
		{name: "an expression that is no condition", args: []string{"queue", "--where", "size + 1"}, code: 2, says: []string{"size + 1"}},
		{name: "bad duration", args: []string{"queue", "--older-than", "soon"}, code: 2, says: []string{"--older-than", "soon"}},
		{name: "bad size", args: []string{"queue", "--larger-than", "huge"}, code: 2, says: []string{"--larger-than", "huge"}},
		{name: "unknown cause", args: []string{"queue", "--cause", "gremlins"}, code: 2, says: []string{"--cause", "gremlins", "dns"}},
		{name: "unknown queue", args: []string{"queue", "--queue", "limbo"}, code: 2, says: []string{"--queue", "limbo", "deferred"}},
		{name: "unknown grouping", args: []string{"queue", "--by", "mood"}, code: 2, says: []string{"mood", "destination"}},
		{name: "unknown flag", args: []string{"queue", "--delete"}, code: 2, says: []string{"--delete", "--help"}},
		{name: "unknown verb", args: []string{"quene"}, code: 2, says: []string{"quene", "holdfast queue"}},
		{name: "no Postfix at all", before: noPostfix, args: []string{"queue"}, code: 6, says: []string{"no Postfix on this host"}},
	}
}

func TestMistakesAreToldInOneSentence(t *testing.T) {
	j := still(t, lab.Storage{})
	in(t, j.Lab, "# two lines\nmyhostname = relay.example.net\nthis is no parameter\n", "sh", "-c",
		"mkdir /etc/postfix-broken /etc/postfix-lost; cp /etc/postfix/* /etc/postfix-lost 2>/dev/null; cat >/etc/postfix-broken/main.cf; postconf -c /etc/postfix-lost -e queue_directory=/var/spool/nowhere")
	for _, m := range mistakes() {
		t.Run(m.name, func(t *testing.T) {
			text := m.run(t, j, nil)
			told := text.Stderr
			if m.prints == "" && text.Stdout != "" || !strings.HasPrefix(text.Stdout, m.prints) {
				t.Errorf("stdout: %q", text.Stdout)
			}
			sentence, hint, ok := strings.Cut(strings.TrimSuffix(told, "\n"), "\nhint: ")
			if !ok || !strings.HasPrefix(sentence, "holdfast: ") || strings.Contains(sentence+hint, "\n") || hint == "" {
				t.Errorf("not one sentence and one hint:\n%s", told)
			}
			for _, want := range m.says {
				if !strings.Contains(told, want) {
					t.Errorf("it does not say %q:\n%s", want, told)
				}
			}
			asJSON := m.run(t, j, []string{"-o", "json"})
			var failure struct {
				Schema, Kind, Message, Hint string
				ExitCode                    int `json:"exit_code"`
			}
			if err := json.Unmarshal([]byte(asJSON.Stdout), &failure); err != nil {
				t.Fatalf("stdout is not one JSON object: %v\n%s", err, asJSON.Stdout)
			}
			if failure.Schema != "holdfast.error/1" || failure.ExitCode != m.code || failure.Hint == "" || "holdfast: "+failure.Message != sentence {
				t.Errorf("JSON says %+v", failure)
			}
			if asJSON.Stderr != told {
				t.Errorf("with JSON, stderr is %q and without %q", asJSON.Stderr, told)
			}
		})
	}
}

// run runs the command line and checks how it ends.
func (m mistake) run(t *testing.T, j *jam, more []string) lab.Result {
	t.Helper()
	argv := slices.Concat(m.before, []string{program}, more, m.args)
	res, err := j.ExecWith(j.ctx, m.as, argv...)
	check(t, err)
	if res.Code != m.code {
		t.Errorf("%q: exit %d, not %d: %s", argv, res.Code, m.code, res.Stderr)
	}
	return res
}

// A stopped mail system is the very moment to look.
func TestStoppedPostfixIsNoMistake(t *testing.T) {
	j := still(t, lab.Storage{})
	if running, err := j.Running(j.ctx, ""); err != nil || running {
		t.Fatalf("Postfix runs: %v, %v", running, err)
	}
	for _, args := range [][]string{{"queue", "-o", "json"}, {"show", "-o", "json", j.files("active")[0]}} {
		res := holdfastAs(t, j.Lab, lab.ExecOptions{}, args...)
		if res.Code != 0 || res.Stdout == "" || strings.Contains(res.Stderr, "holdfast:") {
			t.Errorf("%q: exit %d, stderr %q", args, res.Code, res.Stderr)
		}
	}
}
