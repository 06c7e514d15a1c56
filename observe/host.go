package observe

import (
	"net/netip"
	"time"

	"holdfast/postfix"
)

// Host is what was found by asking the surroundings of one instance. A part
// that could not be had is its zero value and has a Gap in Gaps: Known is what
// tells the two apart.
type Host struct {
	At       time.Time
	DNS      DNS
	Egress   Egress
	Storage  Storage
	Master   Master
	Manager  Manager
	Pressure Pressure
	Settings Settings
	Gaps     []Gap
}

// DNS is what the name servers said, each asked by itself.
type DNS struct {
	Known bool
	// Chrooted says that Postfix's smtp runs in the chroot jail and reads the
	// copy of resolv.conf there; Path is the file that counts.
	Chrooted bool
	Path     string
	// Stale is set where the copy in the jail names other servers than HostPath.
	Stale bool
	// Missing is set where there is no file at Path: the C library then asks
	// 127.0.0.1, and so does Postfix.
	Missing  bool
	HostPath string
	// Servers are those that Postfix asks, in its order.
	Servers []Resolver
	// HostServers are those of HostPath where it differs, asked for comparison.
	HostServers []Resolver
}

// Resolver is one name server and what it said to each question.
type Resolver struct {
	Address string // "192.0.2.53", as resolv.conf names it
	Answers []Answer
}

// Answer is what one name server said to one question.
type Answer struct {
	Name, Type string
	// Control is set for a name that is known to exist, since mail for it was
	// delivered; the others are next hops that mail waits for.
	Control bool
	// Outcome is "answer" (records, Records of them), "nodata", "nxdomain",
	// "servfail", "refused", "timeout", "unreachable", "garbage" or "failed".
	Outcome string
	Records int
	Latency time.Duration
	// Text is the failure in the system's words.
	Text string
}

// Failed says that the server gave no answer that a lookup could end with:
// "does not exist" is one.
func (a Answer) Failed() bool {
	switch a.Outcome {
	case "answer", "nodata", "nxdomain":
		return false
	}
	return true
}

// Egress is what became of connections to mail servers.
type Egress struct {
	Known bool
	// From are the addresses that Postfix binds to, empty where the system
	// chooses; Protocols is inet_protocols.
	From      []string
	Protocols string
	Reaches   []Reach
}

// Reach is one server and how far a connection to it went.
type Reach struct {
	// Server is the name where it is known, Address and Port where it is.
	Server  string
	Address netip.Addr
	Port    uint16
	// Hops are the next hops that it was tried for.
	Hops []string
	// Control is set for a server that the log shows to have taken mail.
	Control bool
	At      time.Time // earlier than this look where the answer is remembered
	// Stage is how far it came: "connect", "banner", "ehlo", "starttls",
	// "done"; Failed says that this stage failed, with Text; Cause is the class
	// of that failure.
	Stage  string
	Failed bool
	Text   string
	Cause  postfix.Cause
	// Banner is the server's greeting, hostile text. TLS says what STARTTLS
	// gave: "", "TLS 1.3", ...
	Banner, TLS string
	Latency     time.Duration
	// Refused says why no connection was tried: the address is one that a
	// stranger must not aim at, or the last answer asked to be left alone.
	Refused string
}

// Well says that the server greets and would take a session.
func (r Reach) Well() bool { return r.Refused == "" && !r.Failed }

// Storage is the file system of the spool.
type Storage struct {
	Known bool
	// Path is the queue directory, Mount where its file system is mounted,
	// Type such as "ext4", Own whether it holds nothing but the spool.
	Path, Mount, Type string
	Own               bool
	// Bytes and inodes as an ordinary user has them: Free excludes what is
	// reserved for root. Inodes is 0 on file systems that have no limit.
	Bytes, Free       int64
	Inodes, FreeFiles int64
	ReadOnly          bool
	// Written says that a file of our own could be made, written and synced;
	// WriteError is why not, and Latency what write and fsync took.
	WriteTried bool
	Written    bool
	WriteError string
	Latency    time.Duration
	// Fillers are the largest parts of the file system, largest first, as far
	// as time and rights allowed.
	Fillers []Filler
	// Log is the file system of the log file where it is another one.
	LogPath string
	LogFree int64
	LogFull bool
}

// Filler is a directory and what lies in it.
type Filler struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Files int64  `json:"files"`
}

// Master is Postfix's master process.
type Master struct {
	Known   bool
	Running bool // its lock is held
	PID     int
	Started time.Time
}

// Manager is the queue manager.
type Manager struct {
	Known bool
	// State is "well", "stopped" (SIGSTOP), "silent" (takes connections and
	// answers none: throttled, or hung), "absent" (nobody listens).
	State   string
	Latency time.Duration
	PID     int
	Started time.Time
}

// Pressure is what the host is short of.
type Pressure struct {
	Known bool
	// CPU, Memory and IO are the share of the last ten seconds in which some
	// task waited for it, in percent (/proc/pressure); -1 where the kernel does
	// not tell.
	CPU, Memory, IO float64
	// IOWait is the share of time that processors waited for disks since boot
	// or, on a second look, since the first, in percent; -1 unknown.
	IOWait float64
	Load   float64
	// PortsUsed and Ports are TCP ports for outgoing connections.
	PortsUsed, Ports int
	// NetErrors are errors and drops of all interfaces but the loopback.
	NetErrors int64
}

// Settings are parameters that rules need; 0 or "" where postconf could not tell.
type Settings struct {
	Known            bool
	ActiveLimit      int   // qmgr_message_active_limit, messages
	MinFree          int64 // queue_minfree, bytes
	MessageSizeLimit int64 // message_size_limit, bytes
	InetProtocols    string
	BindAddress      string // smtp_bind_address
	BindAddress6     string
	HeloName         string // smtp_helo_name; "" where it could not be told
	SMTPChroot       bool
}

// Questions are what to ask the surroundings, as the queue and the log suggest.
type Questions struct {
	// Names are to be asked of every name server.
	Names []Question
	// Servers are to be connected to.
	Servers []Server
	// LogPath is the log file, whose file system is looked at too; "" for none.
	LogPath string
}

// Question is one name to ask for.
type Question struct {
	Name, Type string // Type is "MX" or "A"
	// Control is set for a name that is known to exist.
	Control bool
}

// Server is one mail server to connect to.
type Server struct {
	// Hop is the next hop that it is tried for, as Postfix writes it: a domain
	// whose MX is to be looked up, "[host]" or "[host]:port".
	Hop string
	// Name and Address are what Postfix itself tried last, where the queue or
	// the log says so; without an Address it is looked up.
	Name    string
	Address netip.Addr
	Port    uint16
	Control bool
	// Configured is set where the operator's own configuration names it
	// (relayhost, transport table, content filter): then it may be on this host
	// or in a private network.
	Configured bool
	// LeaveAlone says why it must not be connected to: its last answer was
	// about the pace or the reputation of this host.
	LeaveAlone string
}
