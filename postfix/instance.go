package postfix

import (
	"encoding/json"
	"strings"
	"time"
)

// Instance is one Postfix on this host: a configuration directory and the
// queue, lifetimes and owner that follow from it. Queue IDs are unique only
// within one instance, so every record that Holdfast writes names it.
type Instance struct {
	// Name is multi_instance_name, or the last element of the configuration
	// directory where none is set. It is what records carry.
	Name string `json:"name"`
	// ConfigDir is the directory of main.cf and master.cf.
	ConfigDir string `json:"config_dir"`
	// QueueDir is queue_directory, the root of the spool.
	QueueDir string `json:"queue_dir"`
	// DataDir is data_directory (locks and caches of Postfix).
	DataDir string `json:"data_dir,omitempty"`
	// Version is mail_version, for example "3.7.11".
	Version string `json:"version,omitempty"`
	// Hostname is myhostname.
	Hostname string `json:"hostname,omitempty"`
	// Enabled is false where postmulti lists the instance as disabled.
	Enabled bool `json:"enabled"`

	// MailOwner is the account that owns the spool; the reader runs as it.
	MailOwner string `json:"mail_owner"`
	// SetgidGroup is setgid_group, which may enter public/ and maildrop/.
	SetgidGroup string `json:"setgid_group,omitempty"`
	// LongIDs is enable_long_queue_ids.
	LongIDs bool `json:"long_ids"`
	// HashedQueues is hash_queue_names, HashDepth is hash_queue_depth. Both
	// say where Postfix looks; files may lie elsewhere after a change.
	HashedQueues []string `json:"hashed_queues,omitempty"`
	HashDepth    int      `json:"hash_depth,omitempty"`

	// MaxLifetime and BounceLifetime are maximal_queue_lifetime and
	// bounce_queue_lifetime: the first failed attempt after that age returns
	// the message (qmgr_defer.c, qmgr_active.c).
	MaxLifetime    time.Duration `json:"-"`
	BounceLifetime time.Duration `json:"-"`
	// MinBackoff, MaxBackoff and QueueRunDelay bound the next attempt.
	MinBackoff    time.Duration `json:"-"`
	MaxBackoff    time.Duration `json:"-"`
	QueueRunDelay time.Duration `json:"-"`

	// Relayhost and the tables below decide the next hop of a recipient.
	Relayhost        string   `json:"relayhost,omitempty"`
	DefaultTransport string   `json:"default_transport,omitempty"`
	RelayTransport   string   `json:"relay_transport,omitempty"`
	RelayDomains     []string `json:"relay_domains,omitempty"`
	TransportMaps    []string `json:"transport_maps,omitempty"`

	// MailLogFile is maillog_file, "" where the mail log is syslog's. SyslogName
	// is syslog_name, what the tags of log lines begin with.
	MailLogFile string `json:"maillog_file,omitempty"`
	SyslogName  string `json:"syslog_name,omitempty"`

	// Anew are the parameters of cleanup(8) that are set and that act once more
	// on a message that is requeued: BCC, filter, checks, rewriting.
	Anew []string `json:"-"`

	// CommandDir and DaemonDir hold the programs of this Postfix.
	CommandDir string `json:"command_dir,omitempty"`
	DaemonDir  string `json:"daemon_dir,omitempty"`
}

// AnewParameters are the parameters that can be in Anew. Milters are not among
// them: pickup(8) spares requeued mail from those.
func AnewParameters() []string {
	return []string{
		"always_bcc", "sender_bcc_maps", "recipient_bcc_maps", "content_filter",
		"header_checks", "mime_header_checks", "nested_header_checks", "body_checks",
		"canonical_maps", "sender_canonical_maps", "recipient_canonical_maps", "virtual_alias_maps", "masquerade_domains",
	}
}

// instanceJSON carries what encoding/json would write as nanoseconds.
type instanceJSON struct {
	instanceFields
	MaxLifetime    int64 `json:"max_lifetime_seconds"`
	BounceLifetime int64 `json:"bounce_lifetime_seconds"`
	MinBackoff     int64 `json:"min_backoff_seconds"`
	MaxBackoff     int64 `json:"max_backoff_seconds"`
	QueueRunDelay  int64 `json:"queue_run_delay_seconds"`
}

type instanceFields Instance

// MarshalJSON implements json.Marshaler; times are whole seconds, which is
// what main.cf can say.
func (in Instance) MarshalJSON() ([]byte, error) {
	return json.Marshal(instanceJSON{
		instanceFields(in), seconds(in.MaxLifetime), seconds(in.BounceLifetime),
		seconds(in.MinBackoff), seconds(in.MaxBackoff), seconds(in.QueueRunDelay),
	})
}

// UnmarshalJSON implements json.Unmarshaler.
func (in *Instance) UnmarshalJSON(b []byte) error {
	var j instanceJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*in = Instance(j.instanceFields)
	for to, n := range map[*time.Duration]int64{
		&in.MaxLifetime: j.MaxLifetime, &in.BounceLifetime: j.BounceLifetime,
		&in.MinBackoff: j.MinBackoff, &in.MaxBackoff: j.MaxBackoff, &in.QueueRunDelay: j.QueueRunDelay,
	} {
		*to = time.Duration(n) * time.Second
	}
	return nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// Hashed reports whether Postfix looks for files of the named directory
// (a queue, "defer", "bounce", "trace") in hash sub-directories.
func (in Instance) Hashed(dir string) bool {
	for _, name := range in.HashedQueues {
		if name == dir {
			return true
		}
	}
	return false
}

// DepthOf returns the number of hash levels of the named directory, 0 to 3.
func (in Instance) DepthOf(dir string) int {
	if !in.Hashed(dir) {
		return 0
	}
	return min(max(in.HashDepth, 0), 3)
}

// Expires returns the time from which a failed attempt returns the message to
// its sender. Messages from the null sender have bounce_queue_lifetime, which
// qmgr lowers to maximal_queue_lifetime where it is larger (qmgr/qmgr.c).
// The zero time means that it cannot be told.
func (in Instance) Expires(created time.Time, sender string) time.Time {
	life := in.MaxLifetime
	if sender == "" && in.BounceLifetime < life {
		life = in.BounceLifetime
	}
	if created.IsZero() || (life == 0 && in.MaxLifetime == 0 && in.QueueRunDelay == 0) {
		return time.Time{}
	}
	return created.Add(life)
}

// NextHop returns where Postfix hands a recipient of m to, in the form that it
// logs and schedules by: a domain, "[host]", "[host]:port". In order of
// precedence: the message's content filter, the relayhost, the domain after an
// @ of the redirect target or of the recipient (trivial-rewrite/resolve.c).
// Transport tables are not consulted here; a Snapshot adds what they say.
func (in *Instance) NextHop(m *Message, recipient string) string {
	if m.Filter != "" {
		transport, hop, _ := strings.Cut(m.Filter, ":")
		if hop != "" {
			return hop
		}
		return transport
	}
	if m.Redirect != "" {
		recipient = m.Redirect
	}
	if _, hop, ok := strings.Cut(in.DefaultTransport, ":"); ok && hop != "" {
		return hop
	}
	if in.Relayhost != "" {
		return in.Relayhost
	}
	return DomainOf(recipient)
}
