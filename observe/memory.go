package observe

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// firstCollection is how large the heap may become before the collector runs
	// at all: a snapshot of some 80,000 messages is built undisturbed. Collecting
	// a heap that only grows finds nothing, and costs a tenth of the time.
	firstCollection = 32 << 20
	// heapGrowth is how much garbage, in percent of what is in use, may lie about
	// from then on. A relay in trouble is short of memory, and most of what is in
	// use is a snapshot without pointers to follow: collecting early costs little.
	heapGrowth = 20
	// smallestHeap is the runtime's own threshold at 100 percent.
	smallestHeap = 4 << 20
)

// TuneCollector sets the garbage collector for a process whose memory is its
// snapshots. GOGC in the environment overrules it.
func TuneCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(100 * firstCollection / smallestHeap)
	// The first collection finds the sentinel dead.
	sentinel := &struct{ self *int }{new(int)}
	runtime.AddCleanup(sentinel, func(percent int) { debug.SetGCPercent(percent) }, heapGrowth)
}
