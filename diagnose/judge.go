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
