package maillog

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
)

// seed makes hashes that a sender of mail cannot foresee. All tallies of a
// process share it, since Merge compares their keys.
var seed = maphash.MakeSeed()

// hashOf is the key of a text. That two texts share one is less likely than
// that the disk lied about either.
func hashOf(b []byte) uint64 { return maphash.Bytes(seed, b) }

// table is a map from hashes with a bound: at most limit keys, in one block of
// memory without pointers of its own. The log of a busy relay makes ten look-ups
// a microsecond, three times what Go's map of strings gives.
type table[V any] struct {
	slots []slot[V]
	used  int
	limit int
	shift int // 64 - log2(len(slots))
}

type slot[V any] struct {
	value V      // before the key: one of no size takes none there
	key   uint64 // 0 is free
}

func (t *table[V]) home(key uint64) int {
	// Keys that are no hashes (minutes, process IDs) are spread as well.
	return int(key * 0x9e3779b97f4a7c15 >> t.shift) //nolint:gosec // as many bits as there are slots
}

// find returns what is kept under a key, nil where nothing is. The pointer is
// good until the next put or remove.
func (t *table[V]) find(key uint64) *V {
	if t.used == 0 {
		return nil
	}
	key = max(key, 1)
	for i := t.home(key); ; i = (i + 1) & (len(t.slots) - 1) {
		switch t.slots[i].key {
		case key:
			return &t.slots[i].value
		case 0:
			return nil
		}
	}
}

// put returns what is kept under a key, and makes room for it if there was
// nothing. It returns nil where the table is full.
func (t *table[V]) put(key uint64) (v *V, added bool) {
	key = max(key, 1)
	if 4*t.used >= 3*len(t.slots) {
		if v = t.find(key); v != nil || t.used >= t.limit {
			return v, false
		}
		t.grow()
	}
	for i := t.home(key); ; i = (i + 1) & (len(t.slots) - 1) {
		s := &t.slots[i]
		switch s.key {
		case key:
			return &s.value, false
		case 0:
			if t.used >= t.limit {
				return nil, false
			}
			s.key = key
			t.used++
			return &s.value, true
		}
	}
}

func (t *table[V]) grow() {
	old := t.slots
	size := max(64, 2*len(old))
	t.slots = make([]slot[V], size)
	t.shift = 64 - bits.TrailingZeros(uint(size))
	for _, s := range old {
		if s.key == 0 {
			continue
		}
		i := t.home(s.key)
		for t.slots[i].key != 0 {
			i = (i + 1) & (size - 1)
		}
		t.slots[i] = s
	}
}

// remove forgets a key and moves those behind it that it had displaced.
func (t *table[V]) remove(key uint64) {
	if t.used == 0 {
		return
	}
	mask := len(t.slots) - 1
	hole := t.home(max(key, 1))
	for ; t.slots[hole].key != max(key, 1); hole = (hole + 1) & mask {
		if t.slots[hole].key == 0 {
			return
		}
	}
	for i := (hole + 1) & mask; t.slots[i].key != 0; i = (i + 1) & mask {
		// A key may move to the hole unless its home lies between the two.
		if home := t.home(t.slots[i].key); (i-home)&mask >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = slot[V]{}
	t.used--
}

// each calls visit for all keys, in no order. visit must not change the table.
func (t *table[V]) each(visit func(key uint64, v *V)) {
	for i := range t.slots {
		if t.slots[i].key != 0 {
			visit(t.slots[i].key, &t.slots[i].value)
		}
	}
}

// ranking keeps the heaviest of many items. It lets twice as many in, and then
// drops the lighter half: what makes up more than a small part of the lines
// stays, however many rare ones pass through.
type ranking[E any] struct {
	index  table[int32]
	keys   []uint64
	items  []E
	keep   int
	weight func(*E) int64
	lost   int64 // weight of what was dropped
}

func newRanking[E any](keep int, weight func(*E) int64) ranking[E] {
	return ranking[E]{index: table[int32]{limit: 2*keep + 1}, keep: keep, weight: weight}
}

func (r *ranking[E]) find(key uint64) *E {
	if n := r.index.find(key); n != nil {
		return &r.items[*n]
	}
	return nil
}

// add makes an item under a key that find does not know.
func (r *ranking[E]) add(key uint64, e E) *E {
	if len(r.items) >= 2*r.keep {
		r.prune()
	}
	n, _ := r.index.put(key)
	*n = int32(len(r.items)) //nolint:gosec // bounded by keep
	r.keys, r.items = append(r.keys, key), append(r.items, e)
	return &r.items[len(r.items)-1]
}

func (r *ranking[E]) prune() {
	order := r.order()
	for _, n := range order[r.keep:] {
		r.lost += r.weight(&r.items[n])
	}
	order = order[:r.keep]
	slices.Sort(order) // as they came, so that what follows does not depend on ties
	keys, items := make([]uint64, 0, 2*r.keep), make([]E, 0, 2*r.keep)
	r.index = table[int32]{limit: r.index.limit}
	for i, n := range order {
		keys, items = append(keys, r.keys[n]), append(items, r.items[n])
		at, _ := r.index.put(r.keys[n])
		*at = int32(i)
	}
	r.keys, r.items = keys, items
}

// order lists the items by weight, the heaviest first; of equal ones the first
// that came.
func (r *ranking[E]) order() []int {
	order := make([]int, len(r.items))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch wa, wb := r.weight(&r.items[a]), r.weight(&r.items[b]); {
		case wa > wb:
			return -1
		case wa < wb:
			return 1
		}
		return 0
	})
	return order
}

// distinct counts different keys: exactly while they fit, from then on by a
// HyperLogLog of 16 kB, whose standard error is 1.04/sqrt(16384), 0.8 percent
// (Flajolet and others, 2007).
type distinct struct {
	set    table[struct{}]
	sketch []uint8
}

const (
	sketchBits   = 14
	distinctMost = 1 << 20
)

func (d *distinct) add(key uint64) {
	if d.sketch == nil {
		d.set.limit = distinctMost
		if v, _ := d.set.put(key); v != nil {
			return
		}
		d.estimate()
	}
	d.note(key)
}

// estimate gives up the exact set for the sketch of it.
func (d *distinct) estimate() {
	d.sketch = make([]uint8, 1<<sketchBits)
	d.set.each(func(key uint64, _ *struct{}) { d.note(key) })
	d.set = table[struct{}]{}
}

// note enters a key into the sketch: its first bits choose a register, which
// keeps how rare the rarest of its keys was.
func (d *distinct) note(key uint64) {
	key = max(key, 1)                                                         // as the set does
	rank := uint8(bits.LeadingZeros64(key<<sketchBits|1<<(sketchBits-1))) + 1 //nolint:gosec // at most 64
	if r := &d.sketch[key>>(64-sketchBits)]; *r < rank {
		*r = rank
	}
}

func (d *distinct) merge(other *distinct) {
	other.set.each(func(key uint64, _ *struct{}) { d.add(key) })
	if other.sketch == nil {
		return
	}
	if d.sketch == nil {
		d.estimate()
	}
	for i, rank := range other.sketch {
		d.sketch[i] = max(d.sketch[i], rank)
	}
}

// count returns how many keys there are and whether that is an estimate.
func (d *distinct) count() (n int64, estimated bool) {
	if d.sketch == nil {
		return int64(d.set.used), false
	}
	const m = 1 << sketchBits
	sum := 0.0
	for _, rank := range d.sketch {
		sum += 1 / float64(uint64(1)<<rank)
	}
	// The correction for small numbers is not needed: there are a million.
	return int64(math.Round(0.7213 / (1 + 1.079/m) * m * m / sum)), true
}
