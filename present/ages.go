package present

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"holdfast/postfix"
)

// AgeBuckets is the number of columns of the age table.
const AgeBuckets = 10

// ageTitles are the upper bounds of the buckets in minutes: those of Postfix's
// own qshape, so that the two tables can be laid side by side.
var ageTitles = [AgeBuckets]literal{"5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"}

// ageKeys name the buckets where they are groups.
var ageKeys = [AgeBuckets + 1]string{
	"under 5m", "5m to 10m", "10m to 20m", "20m to 40m", "40m to 80m", "80m to 160m", "160m to 320m",
	"320m to 640m", "640m to 1280m", "1280m and more", "not known",
}

// AgeTitles returns the column titles of the age table.
func AgeTitles() []Words {
	out := make([]Words, AgeBuckets)
	for i, t := range ageTitles {
		out[i] = Say(t)
	}
	return out
}

// bucket finds the column of an age. A message from the future, after the
// clock was set back, is young.
func bucket(age time.Duration) int {
	limit := 5 * time.Minute
	for i := range AgeBuckets - 1 {
		if age < limit {
			return i
		}
		limit *= 2
	}
	return AgeBuckets - 1
}

func ageKey(m *postfix.Message, at time.Time) (string, int) {
	arrived := Arrived(m)
	if arrived.IsZero() {
		return ageKeys[AgeBuckets], AgeBuckets
	}
	b := bucket(at.Sub(arrived))
	return ageKeys[b], b
}

// AgeRow is one line of the age table: how many recipients (of a destination)
// or messages (of a sender's domain) are how old.
type AgeRow struct {
	Key    string
	Total  int
	Counts [AgeBuckets]int
}

// AgeTable counts ages by destination, or by the domain of the sender. As in
// qshape, destinations count recipients and senders count messages.
type AgeTable struct {
	senders bool
	at      time.Time
	rows    map[string]*AgeRow
	total   AgeRow
	unknown int
}

// NewAgeTable returns an empty table with ages as of the given time.
func NewAgeTable(senders bool, at time.Time) *AgeTable {
	return &AgeTable{senders: senders, at: at, rows: make(map[string]*AgeRow)}
}

// Add counts one message.
func (t *AgeTable) Add(m *postfix.Message) {
	arrived := Arrived(m)
	if arrived.IsZero() {
		t.unknown++
		return
	}
	b := bucket(t.at.Sub(arrived))
	if t.senders {
		t.count(postfix.DomainOf(m.Sender), b)
		return
	}
	for i := range m.Recipients {
		t.count(Destination(&m.Recipients[i]), b)
	}
}

func (t *AgeTable) count(key string, b int) {
	row := t.rows[key]
	if row == nil {
		row = &AgeRow{Key: key}
		t.rows[key] = row
	}
	row.Total++
	row.Counts[b]++
	t.total.Total++
	t.total.Counts[b]++
}

// Merge adds what another table has counted.
func (t *AgeTable) Merge(other *AgeTable) {
	t.total.merge(&other.total)
	t.unknown += other.unknown
	for key, row := range other.rows {
		mine := t.rows[key]
		if mine == nil {
			mine = &AgeRow{Key: key}
			t.rows[key] = mine
		}
		mine.merge(row)
	}
}

func (r *AgeRow) merge(other *AgeRow) {
	r.Total += other.Total
	for i, n := range other.Counts {
		r.Counts[i] += n
	}
}

// Total is the sum of all rows.
func (t *AgeTable) Total() AgeRow { return t.total }

// Unknown counts messages whose arrival is not known; no row has them.
func (t *AgeTable) Unknown() int { return t.unknown }

// Rows returns the rows, the largest first.
func (t *AgeTable) Rows() []AgeRow {
	out := make([]AgeRow, 0, len(t.rows))
	for _, r := range t.rows {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b AgeRow) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), strings.Compare(a.Key, b.Key))
	})
	return out
}
