package probe

import (
	"os"
	"path/filepath"
	"testing"

	"holdfast/postfix"
)

func TestSettingsAsPostconfTellsThem(t *testing.T) {
	dir := configure(t, "compatibility_level=3.6\nmyhostname=relay.example\nqmgr_message_active_limit=500\nqueue_minfree=1000000\n"+
		"smtp_bind_address=192.0.2.1\ninet_protocols=all\n")
	services := "smtp inet n - y - - smtpd\nsmtp unix - - n - - smtp\n  -o smtp_bind_address=192.0.2.7 -o syslog_name=out/x\n  -o inet_protocols=ipv4 -o { smtp_helo_name = mx.$mydomain }\nqmgr unix n - n 300 1 qmgr\n"
	if err := os.WriteFile(filepath.Join(dir, "master.cf"), []byte(services), 0o644); err != nil {
		t.Fatal(err)
	}
	s, gaps := askSettings(t.Context(), postfix.Instance{ConfigDir: dir})
	if len(gaps) != 0 {
		t.Errorf("gaps %v", gaps)
	}
	if !s.Known || s.ActiveLimit != 500 || s.MinFree != 1000000 || s.MessageSizeLimit != 10240000 {
		t.Errorf("%+v", s)
	}
	// What master.cf says for the service that delivers counts more.
	if s.BindAddress != "192.0.2.7" || s.InetProtocols != "ipv4" || s.HeloName == "relay.example" || s.SMTPChroot {
		t.Errorf("%+v", s)
	}
}

func TestSettingsThatCannotBeRead(t *testing.T) {
	s, gaps := askSettings(t.Context(), postfix.Instance{ConfigDir: t.TempDir()})
	if s.Known || len(gaps) != 1 || gaps[0].Hint == "" {
		t.Errorf("%+v, gaps %v", s, gaps)
	}
	dir := configure(t, "compatibility_level=3.6\nmessage_size_limit=10M\n")
	if err := os.Remove(filepath.Join(dir, "master.cf")); err != nil {
		t.Fatal(err)
	}
	s, gaps = askSettings(t.Context(), postfix.Instance{ConfigDir: dir})
	if !s.Known || s.ActiveLimit != 20000 || len(gaps) != 3 {
		t.Errorf("%+v, gaps %v", s, gaps)
	}
}

func TestChrootOfSMTP(t *testing.T) {
	lines := func(column string) string {
		return "smtp inet n - y - - smtpd\nrelay unix - - y - - smtp\nsmtp unix - - " + column + " - - smtp\n"
	}
	for _, c := range []struct {
		column, version, level string
		want                   bool
	}{
		{"y", "3.7.11", "3.6", true},
		{"n", "2.9.6", "", false},
		{"-", "3.7.11", "3.6", false},
		{"-", "3.7.11", "2", false},
		{"-", "3.7.11", "0", true},
		{"-", "2.11.3", "", true},
		{"-", "3.12-20261101", "3.11", false},
	} {
		if got := smtpChroot(lines(c.column), c.version, c.level); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if smtpChroot("smtp unix", "3.7", "3.6") || smtpChroot("", "", "") {
		t.Error("a jail for no service")
	}
}
