package probe

import (
	"testing"
)

func TestPressure(t *testing.T) {
	p := procfs(tree(t, map[string]string{
		"pressure/cpu":                     "some avg10=12.50 avg60=1.00 avg300=0.10 total=5\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/io":                      "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"stat":                             "cpu  10 0 10 60 20 0 0 0 5 5\ncpu0 1 1 1 1 99 1 1 1 0 0\nbtime 1\n",
		"loadavg":                          "3.25 1.00 0.50 2/300 4711\n",
		"net/dev":                          "Inter-|   Receive |  Transmit\n face |bytes packets errs drop\n    lo: 1 1 9 9 0 0 0 0 1 1 9 9 0 0 0 0\n  eth0: 1 1 1 2 0 0 0 0 1 1 4 8 0 0 0 0\n  eth1:1 1 16 0 0 0 0 0 1 1 0 0 0 0 0 0\n",
		"net/tcp":                          "  sl  local_address rem_address   st\n   0: 0100007F:0019 00000000:0000 0A 0\n   1: 0100007F:8000 0200007F:0019 01 0\n   2: 0100007F:8000 0300007F:0019 01 0\n   3: 0100007F:8001 0200007F:0019 06 0\n   4: 0100007F:8002 00000000:0000 0A 0\ngarbage\n",
		"net/tcp6":                         "  sl  local_address rem_address   st\n   0: 00000000000000000000000001000000:8003 00000000000000000000000001000000:0019 01 0\n   1: 00000000000000000000000001000000:0400 00000000000000000000000001000000:0019 01 0\n",
		"sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
	}))
	got, gaps := askPressure(t.Context(), p)
	if len(gaps) != 0 {
		t.Errorf("gaps %v", gaps)
	}
	if got.CPU != 12.5 || got.IO != 0 || got.Memory != -1 || got.IOWait != 20 || got.Load != 3.25 || got.NetErrors != 31 || got.PortsUsed != 3 || got.Ports != 28232 {
		t.Errorf("%+v", got)
	}
}

func TestPressureOfAHostThatDoesNotTell(t *testing.T) {
	got, gaps := askPressure(t.Context(), procfs(t.TempDir()))
	if !got.Known || got.CPU != -1 || got.Memory != -1 || got.IO != -1 || got.IOWait != -1 || got.Ports != 0 || len(gaps) != 0 {
		t.Errorf("%+v, gaps %v", got, gaps)
	}
	got, gaps = askPressure(t.Context(), procfs(tree(t, map[string]string{
		"pressure/cpu": "full avg10=\n", "stat": "cpu a b c d e f\n", "loadavg": "", "net/dev": ": : :\n x: 1\n",
		"net/tcp": "1: : :\n", "sys/net/ipv4/ip_local_port_range": "60999 32768\n",
	})))
	if got.CPU != -1 || got.IOWait != -1 || got.Ports != 0 || len(gaps) != 4 {
		t.Errorf("garbage: %+v, gaps %v", got, gaps)
	}
}
