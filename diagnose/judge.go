package diagnose

import (
	"time"

	"holdfast/observe"
)

// Sight is everything that was seen of one instance. Log and Host are nil where
// nothing could be seen of them.
type Sight struct {
	Snapshot *observe.Snapshot
	Log      *observe.Log
	Host     *observe.Host
	Now      time.Time
}

// Judge says whether mail flows, and what keeps it.
func Judge(s Sight) Verdict {
	return Verdict{State: CannotTell, Sentence: "Cannot tell yet.", Findings: []Finding{}}
}

// Questions says what to ask the surroundings, by what the queue and the log
// suggest.
func Questions(snap *observe.Snapshot, log *observe.Log) observe.Questions {
	return observe.Questions{}
}
