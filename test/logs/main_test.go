// Package logs holds the reading of logs to what others read in the same logs:
// grep and pflogsumm, in what a real Postfix wrote, rotated and compressed by
// its own `postfix logrotate`. And it holds the opener, which stays root for
// the reader, to its grants.
//
// Invariant: the reader runs as in production, as the owner of the spool with
// an opener that was started before; it is a process of its own for that. What
// it says is compared with programs that are not ours.
//
// It never skips: without root, Postfix or pflogsumm the tests fail and say so.
package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"holdfast/lab"
	"holdfast/observe"
	"holdfast/observe/maillog"
	"holdfast/observe/opener"
	"holdfast/observe/spool"
	"holdfast/postfix"
)

// asReader makes a start of this program a reader that gives up root.
const asReader = "HOLDFAST_TEST_READER"

func TestMain(m *testing.M) {
	if opener.Serve(os.Args) {
		return
	}
	if text := os.Getenv(asReader); text != "" {
		if err := reader(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Main()
	os.Exit(m.Run())
}

// job is what a reader is to do.
type job struct {
	Instance postfix.Instance
	Files    []string // to be summed up
	Alone    bool     // without an opener
	Follow   bool     // the lines of the last hour as well, until there are two
}

// findings are what it found.
type findings struct {
	UID       int
	Log       *observe.Log
	Gaps      []observe.Gap
	Summary   *maillog.Summary
	Unsummed  string // why there is no summary
	SummaryOf []observe.Gap
	Followed  int
	Ended     string
}

// reader does as triage does: the opener first, then root is given up, and only
// then is anything read.
func reader(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	var root *opener.Opener
	if !j.Alone {
		var err error
		root, err = opener.Start(opener.Grants{Logs: append(maillog.Candidates(j.Instance.MailLogFile), j.Files...)})
		if err != nil {
			return err
		}
		defer root.Close()
	}
	if err := spool.Drop(j.Instance.MailOwner); err != nil {
		return err
	}
	f := findings{UID: os.Getuid()}
	f.Log, f.Gaps = maillog.Read(context.Background(), j.Instance, maillog.ReadOptions{Opener: root, Detail: true})
	if len(j.Files) > 0 {
		var err error
		f.Summary, f.SummaryOf, err = maillog.Summarize(context.Background(), j.Files, maillog.Options{}, root)
		if err != nil {
			f.Unsummed = err.Error()
		}
	}
	if j.Follow {
		ctx, end := context.WithCancel(context.Background())
		from := maillog.Position{At: time.Now().Add(-time.Hour)}
		err := maillog.Follow(ctx, j.Instance, maillog.ReadOptions{Opener: root}, from, func(maillog.Line, maillog.Position) {
			if f.Followed++; f.Followed == 2 {
				time.AfterFunc(time.Second, end) // by then it waits for more
			}
		})
		f.Ended = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// read has a reader read, inside the lab.
func read(t *testing.T, l *lab.Lab, j job) findings {
	t.Helper()
	text, err := json.Marshal(j)
	check(t, err)
	self, err := os.Executable() // below /tmp, which labs share with the host
	check(t, err)
	res, err := l.ExecWith(within(t, time.Minute), lab.ExecOptions{Env: []string{asReader + "=" + string(text)}}, self)
	check(t, err)
	if res.Code != 0 {
		t.Fatalf("reader: exit %d: %s", res.Code, res.Stderr)
	}
	var f findings
	check(t, json.Unmarshal([]byte(res.Stdout), &f))
	if f.UID == 0 {
		t.Fatal("the reader is root")
	}
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
