package present

import (
	"math"
	"slices"
	"time"

	"holdfast/observe"
)

// HostRecord is what was found by asking the surroundings. A part that could
// not be had is nil, never zeroes; of the two lists, which are empty then, a
// gap says why.
type HostRecord struct {
	Resolvers    []ResolverRecord    `json:"resolvers"`
	Servers      []ServerRecord      `json:"servers"`
	Storage      *StorageRecord      `json:"storage"`
	Master       *MasterRecord       `json:"master"`
	QueueManager *QueueManagerRecord `json:"queue_manager"`
	Pressure     *PressureRecord     `json:"pressure"`
}

// ResolverRecord is one name server and how it answered.
type ResolverRecord struct {
	Address   string   `json:"address"`
	Path      string   `json:"path"`
	Stale     bool     `json:"stale"`
	Questions int      `json:"questions"`
	Failed    int      `json:"failed"`
	LatencyMS *float64 `json:"latency_ms"`
}

// ServerRecord is one mail server and how far a connection to it went.
type ServerRecord struct {
	Server    string    `json:"server"`
	Address   string    `json:"address"`
	Port      int       `json:"port"`
	Hops      []string  `json:"hops"`
	Control   bool      `json:"control"`
	Stage     string    `json:"stage"`
	Failed    bool      `json:"failed"`
	Text      string    `json:"text"`
	Refused   string    `json:"refused"`
	At        time.Time `json:"at,omitzero"`
	LatencyMS *float64  `json:"latency_ms"`
	TLS       string    `json:"tls"`
}

// StorageRecord is the file system of the spool. Written is nil where no
// write was tried.
type StorageRecord struct {
	Path       string           `json:"path"`
	Mount      string           `json:"mount"`
	Type       string           `json:"type"`
	Own        bool             `json:"own"`
	Bytes      int64            `json:"bytes"`
	Free       int64            `json:"free"`
	Inodes     int64            `json:"inodes"`
	FreeInodes int64            `json:"free_inodes"`
	ReadOnly   bool             `json:"read_only"`
	Written    *bool            `json:"written"`
	WriteError string           `json:"write_error"`
	LatencyMS  *float64         `json:"latency_ms"`
	Fillers    []observe.Filler `json:"fillers"`
}

// MasterRecord is Postfix's master process.
type MasterRecord struct {
	Running bool      `json:"running"`
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
}

// QueueManagerRecord is the queue manager; LatencyMS is nil where it gave no
// answer.
type QueueManagerRecord struct {
	State     string    `json:"state"`
	LatencyMS *float64  `json:"latency_ms"`
	PID       int       `json:"pid,omitempty"`
	Started   time.Time `json:"started,omitzero"`
}

// PressureRecord is what the host is short of. nil is what the kernel does not
// tell.
type PressureRecord struct {
	CPU       *float64 `json:"cpu"`
	Memory    *float64 `json:"memory"`
	IO        *float64 `json:"io"`
	IOWait    *float64 `json:"io_wait"`
	Load      float64  `json:"load"`
	PortsUsed *int     `json:"ports_used"`
	Ports     *int     `json:"ports"`
	NetErrors int64    `json:"net_errors"`
}

// HostRecordOf returns what was found as it stands in JSON, nil where nothing
// was asked.
func HostRecordOf(h *observe.Host) *HostRecord {
	if h == nil {
		return nil
	}
	r := &HostRecord{Resolvers: ResolversOf(h.DNS), Storage: storageOf(h.Storage), Pressure: pressureOf(h.Pressure)}
	if h.Egress.Known {
		for _, reach := range h.Egress.Reaches {
			r.Servers = append(r.Servers, serverOf(reach))
		}
	}
	if m := h.Master; m.Known {
		r.Master = &MasterRecord{Running: m.Running, PID: m.PID, Started: m.Started}
	}
	if m := h.Manager; m.Known {
		r.QueueManager = &QueueManagerRecord{State: m.State, LatencyMS: tookMS(m.Latency), PID: m.PID, Started: m.Started}
	}
	return r
}

// ResolversOf returns the name servers that Postfix asks and, where its list
// is an old copy, behind them those of the host.
func ResolversOf(d observe.DNS) []ResolverRecord {
	if !d.Known {
		return nil
	}
	var list []ResolverRecord
	for _, r := range d.Servers {
		list = append(list, resolverOf(r, d.Path, d.Stale))
	}
	for _, r := range d.HostServers {
		list = append(list, resolverOf(r, d.HostPath, false))
	}
	return list
}

func resolverOf(r observe.Resolver, path string, stale bool) ResolverRecord {
	out := ResolverRecord{Address: r.Address, Path: path, Stale: stale, Questions: len(r.Answers)}
	var took []time.Duration
	for _, a := range r.Answers {
		if a.Failed() {
			out.Failed++
		} else {
			took = append(took, a.Latency)
		}
	}
	// Of answers only: the time of a silent server is the patience of the probe.
	if len(took) > 0 {
		out.LatencyMS = milliseconds(median(took))
	}
	return out
}

// median is the middle one, of an even number the mean of the middle two.
func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	half := len(list) / 2
	if len(list)%2 == 1 {
		return list[half]
	}
	return (list[half-1] + list[half]) / 2
}

func serverOf(r observe.Reach) ServerRecord {
	out := ServerRecord{
		Server: r.Server, Port: int(r.Port), Hops: r.Hops, Control: r.Control, Stage: r.Stage, Failed: r.Failed,
		Text: r.Text, Refused: r.Refused, At: r.At, LatencyMS: tookMS(r.Latency), TLS: r.TLS,
	}
	if r.Address.IsValid() { // netip would say "invalid IP"
		out.Address = r.Address.String()
	}
	return out
}

func storageOf(s observe.Storage) *StorageRecord {
	if !s.Known {
		return nil
	}
	out := &StorageRecord{
		Path: s.Path, Mount: s.Mount, Type: s.Type, Own: s.Own, Bytes: s.Bytes, Free: s.Free,
		Inodes: s.Inodes, FreeInodes: s.FreeFiles, ReadOnly: s.ReadOnly, WriteError: s.WriteError, Fillers: s.Fillers,
	}
	if s.WriteTried {
		out.Written, out.LatencyMS = &s.Written, milliseconds(s.Latency)
	}
	return out
}

func pressureOf(p observe.Pressure) *PressureRecord {
	if !p.Known {
		return nil
	}
	told := func(share float64) *float64 {
		if share < 0 {
			return nil
		}
		return new(math.Round(share*100) / 100)
	}
	out := &PressureRecord{
		CPU: told(p.CPU), Memory: told(p.Memory), IO: told(p.IO), IOWait: told(p.IOWait), Load: p.Load, NetErrors: p.NetErrors,
	}
	if p.Ports > 0 { // the range of a host that connects is never empty
		out.PortsUsed, out.Ports = &p.PortsUsed, &p.Ports
	}
	return out
}

// tookMS is milliseconds of what can only have taken some time: 0 says that it
// did not happen.
func tookMS(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	return milliseconds(d)
}

// milliseconds keeps microseconds, which is as fine as such a time is true.
func milliseconds(d time.Duration) *float64 {
	return new(float64(d.Microseconds()) / 1000)
}
