package postfix

import "time"

// Fingerprint names one message beyond doubt. The queue ID alone does not:
// Postfix uses short IDs again. The device number is left out on purpose; it
// changes between boots and mounts without the message being another one.
type Fingerprint struct {
	// Instance is the name of the Postfix instance.
	Instance string  `json:"instance"`
	ID       QueueID `json:"id"`
	Inode    uint64  `json:"inode"`
	// Arrival is the T record to the microsecond, UTC.
	Arrival time.Time `json:"arrival"`
	// Size is field 1 of the SIZE record, in bytes.
	Size int64 `json:"size"`
	// Sender is the envelope sender in internal form.
	Sender string `json:"sender"`
	// Digest is "sha256:" and the hexadecimal SHA-256 of the content segment,
	// only where it was asked for. Envelope records are rewritten in place
	// while a message waits, so a digest of the whole file would not last.
	Digest string `json:"digest,omitempty"`
}

// Fingerprint returns the message's fingerprint without a digest.
func (m *Message) Fingerprint(instance string) Fingerprint {
	return Fingerprint{
		Instance: instance, ID: m.ID, Inode: m.Inode,
		Arrival: m.Arrival.UTC().Truncate(time.Microsecond), Size: m.Size, Sender: m.Sender,
	}
}

// Same reports whether both name the same message. A digest is compared only
// where both carry one.
func (f Fingerprint) Same(other Fingerprint) bool {
	if f.Digest != "" && other.Digest != "" && f.Digest != other.Digest {
		return false
	}
	return f.Instance == other.Instance && f.ID == other.ID && f.Inode == other.Inode &&
		f.Arrival.Equal(other.Arrival) && f.Size == other.Size && f.Sender == other.Sender
}
