package maillog

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"holdfast/observe"
)

const (
	// zoneSlack is how far the last line of a file may lie from the file's
	// time before the zone is doubted: buffered writing, a slow syslog.
	zoneSlack = 10 * time.Minute
	// zoneStep is what zones differ by.
	zoneStep = 15 * time.Minute
	// zoneNear is how close to such a step the difference must be.
	zoneNear = 2 * time.Minute
)

// zoneOf returns the zone of a file's stamps. RFC 3164 has no zone in them, and
// a relay in a container, or a log that was collected from elsewhere, need not
// have this host's. The file's own time is the clock to compare with: it is
// that of its last line.
func zoneOf(f *logFile, zone *time.Location) (*time.Location, []observe.Gap) {
	if zone == nil {
		zone = time.Local
	}
	ahead := f.aheadOf(zone)
	if ahead == 0 {
		return zone, nil
	}
	_, here := f.written.In(zone).Zone()
	other := time.FixedZone("", here+int(ahead/time.Second))
	return other, []observe.Gap{{
		Source: gapSource, Object: f.name,
		Text: fmt.Sprintf("its stamps are of another time zone than this host's: taken as UTC%s", f.written.In(other).Format("-07:00")),
		Hint: "give syslog and Postfix the same TZ as this host, or let syslog write RFC 3339 stamps",
	}}
}

// aheadOf says by how much the last stamps without a zone are ahead of the
// file's own time, 0 where that is nothing like a zone. Several lines are
// asked: anybody can have syslog write one with a stamp of his choice.
func (f *logFile) aheadOf(zone *time.Location) time.Duration {
	end := make([]byte, min(f.size, 16<<10))
	n, _ := f.ReadAt(end, f.size-int64(len(end)))
	lines := bytes.Split(end[:n], []byte("\n"))
	var c clock
	c.set(zone, f.written)
	var differences []time.Duration
	for _, line := range slices.Backward(lines) {
		at, _, ok := c.read(line)
		if ok && line[3] == ' ' && len(differences) < 8 {
			differences = append(differences, time.Unix(0, at).Sub(f.written))
		}
	}
	if len(differences) == 0 {
		return 0
	}
	slices.Sort(differences)
	// Lines are written before or at the file's time, so that of the latest
	// stamp is the difference; half of them must agree that it is ahead.
	ahead := differences[len(differences)-1]
	if ahead > zoneSlack && differences[len(differences)/2] < zoneSlack {
		return 0
	}
	step := ahead.Round(zoneStep)
	off := ahead - step
	if step.Abs() < zoneStep || step.Abs() > 26*time.Hour || off.Abs() > zoneNear || ahead.Abs() <= zoneSlack {
		return 0
	}
	return step
}
