package cli

import (
	"os"
	"path/filepath"
	"testing"
)

func TestScreensOfTheSettings(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, text := range map[string]string{
		"good.toml":  "[policy.delete]\nneeds_ticket = true\nsecond_person = true\nallow = [\"anna\", \"@mailops\"]\n",
		"wrong.toml": "[policy.delete]\nneeds_tickets = true\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	results := map[string]result{}
	for name, args := range map[string][]string{
		"check":        {"config", "check", "--config", "good.toml"},
		"check-wrong":  {"config", "check", "--config", "wrong.toml"},
		"check-none":   {"config", "check", "--config", "none.toml"},
		"explain":      {"config", "explain", "--config", "good.toml"},
		"json-explain": {"config", "explain", "--config", "good.toml", "-o", "json"},
		"sample":       {"config", "sample"},
		"help":         {"config", "--help"},
	} {
		results[name] = run(t, jam(), 80, append(args, "--color=never")...)
	}
	t.Chdir(here)
	for name, r := range results {
		golden(t, "config-"+name, 0, r)
	}
}

// here is the directory of this package, where the expected screens are.
var here, _ = os.Getwd()
