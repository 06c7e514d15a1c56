package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"holdfast/lab/forge"
)

// Log is a forged mail log on disk, with what it says.
type Log struct {
	Path   string
	To     time.Time // of the last line
	Totals forge.MailLogTotals
}

// fresh is how old a log may be that an earlier call made. Triage reads the
// last hour, which must not have become the last minutes of the log.
const fresh = 20 * time.Minute

// OpenLog returns a log of so many bytes and so long a time that ends now, at a
// path of its own, which it makes unless an earlier call did so a short time
// ago. The file is as postlogd(8) makes it: nobody but root may read it.
func OpenLog(path string, size int64, span time.Duration) (*Log, error) {
	l := &Log{}
	manifest := path + ".json"
	text, err := os.ReadFile(manifest)
	if err == nil {
		if err := json.Unmarshal(text, l); err != nil {
			return nil, fmt.Errorf("read manifest of log %q: %w", path, err)
		}
		if time.Since(l.To) < fresh {
			return l, nil
		}
		// Written last, removed first: what is half done is not used.
		if err := os.Remove(manifest); err != nil {
			return nil, fmt.Errorf("make log anew: %w", err)
		}
	}
	l.Path, l.To = path, time.Now()
	if err := l.write(size, span); err != nil {
		return nil, err
	}
	if text, err = json.Marshal(l); err != nil {
		return nil, fmt.Errorf("write manifest of log: %w", err)
	}
	return l, os.WriteFile(manifest, text, 0o600)
}

func (l *Log) write(size int64, span time.Duration) error {
	f, err := os.OpenFile(l.Path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	l.Totals, err = forge.MailLog(f, forge.MailLogOptions{Bytes: size, Seed: 1, From: l.To.Add(-span), To: l.To, Domains: domains})
	// On the disk before anything is measured: writing it out would disturb.
	return errors.Join(err, f.Sync(), f.Close())
}

// WithLog returns a configuration directory that differs from the corpus's own
// in maillog_file alone. The other benchmarks shall not see a log.
func (c *Corpus) WithLog(l *Log) (string, error) {
	dir := filepath.Join(filepath.Dir(c.Private.ConfigDir), "config-"+filepath.Base(l.Path))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("configure a log: %w", err)
	}
	for _, name := range []string{"main.cf", "master.cf"} {
		text, err := os.ReadFile(filepath.Join(c.Private.ConfigDir, name))
		if err != nil {
			return "", fmt.Errorf("configure a log: %w", err)
		}
		lines := strings.Replace(string(text), "maillog_file =\n", "maillog_file = "+l.Path+"\n", 1)
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(lines), 0o644); err != nil { //nolint:gosec // Postfix's programs read it
			return "", fmt.Errorf("configure a log: %w", err)
		}
		// Postfix waits until main.cf has not changed for two seconds.
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			return "", fmt.Errorf("configure a log: %w", err)
		}
	}
	return dir, nil
}
