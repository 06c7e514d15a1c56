package observe

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"time"
	"unsafe"

	"holdfast/postfix"
)

// A Shard is a part of a Snapshot that one reader fills. A million queued
// messages must fit beside a relay's own work, so messages are kept as fixed
// rows and one text arena without pointers: about 180 bytes for a message with
// one recipient instead of a kilobyte, and nothing for the garbage collector
// to walk.
type Shard struct {
	rows  [][]row
	rcpts [][]rcptRow
	fails [][]failRow
	count int
	waste int
	nrcpt uint32
	nfail uint32

	text   [][]byte
	intern map[string]ref

	// What comes again and again as a whole is kept once: where mail comes
	// from, and why it waits. The reasons also remember their class, which
	// costs a hundred comparisons to find.
	origins table[originRow]
	reasons table[reasonRow]
	odds    table[oddRow]
	causes  map[string]ref // by status and masked reason
	scratch []byte         // a reason without the address
	masked  []byte
	seed    maphash.Seed
}

// table keeps rows that repeat, in blocks as all rows are. Number 0 is the row
// of zeroes. Its index is bounded as that of the texts is, and goes by hash:
// the texts themselves are in the arena already.
type table[R any] struct {
	rows  [][]R
	count int
	index map[uint64]uint32
}

// find returns the number of the row that was stored under a hash, if it is
// the one that same knows.
func (t *table[R]) find(hash uint64, same func(*R) bool) (uint32, bool) {
	n, ok := t.index[hash]
	if !ok || !same(&t.rows[n/rowsPerBlock][n%rowsPerBlock]) {
		return 0, false
	}
	return n, true
}

// add stores a row and returns its number.
func (t *table[R]) add(hash uint64, row R) uint32 {
	if t.index == nil {
		t.index = make(map[uint64]uint32)
		t.rows = appendBlock(t.rows, 0, *new(R))
		t.count = 1
	}
	n := uint32(t.count) //nolint:gosec // no more rows than recipients
	t.rows = appendBlock(t.rows, t.count, row)
	t.count++
	if len(t.index) < maxInterned {
		t.index[hash] = n
	}
	return n
}

func (t *table[R]) at(n uint32) (r R) {
	if n > 0 {
		r = t.rows[n/rowsPerBlock][n%rowsPerBlock]
	}
	return r
}

const (
	rowsPerBlock   = 1024
	bytesPerArena  = 1 << 16
	maxInterned    = 1 << 12
	maxTextBytes   = 1 << 14
	placeholder    = 0x00
	arenaBits      = 16
	arenaIndexMask = 1<<arenaBits - 1
	maxBlocks      = 1<<arenaBits - 64
)

// ref addresses a text in the arena: block number and offset in it. There the
// text stands behind its length in two bytes. 0 is the empty text.
type ref uint32

// originRow says where a message comes from and what was ordered for it.
type originRow struct {
	client, address, helo, protocol, sasl, filter, redirect ref
}

// reasonRow says why a recipient waits.
type reasonRow struct {
	reason, status, host, cause ref
	quotes                      bool // placeholders in reason stand for the address
}

type row struct {
	inode                 uint64
	arrival, changed, try int64 // microseconds since 1970, 0 = not known
	size, file            int64
	data                  uint32 // an envelope of 4 GiB is none
	created               uint32 // seconds since 1970: create_time has no more
	id, sender            ref
	origin, odd           uint32
	firstRcpt, rcpts      uint32
	total, done           uint32
	queue                 postfix.Queue
	flags                 uint8
}

// oddRow is what few messages have.
type oddRow struct {
	content           int64 // the size in nearly all
	messageID, damage ref
	firstFail, fails  uint32
}

type rcptRow struct {
	offset                 int64
	address, original, hop ref
	reason                 uint32
}

type failRow struct {
	offset                  int64
	address, status, reason ref
}

const (
	flagExpire = 1 << iota
	flagFlush
	flagUTF8
)

// NewShard returns an empty shard.
func NewShard() *Shard {
	return &Shard{intern: make(map[string]ref), causes: make(map[string]ref), seed: maphash.MakeSeed()}
}

// Len returns the number of messages in the shard.
func (s *Shard) Len() int { return s.count }

// Add copies the message into the shard and returns its index there. Nothing
// of m is referenced afterwards.
func (s *Shard) Add(m *postfix.Message) int {
	if s.count%rowsPerBlock == 0 {
		s.rows = append(s.rows, make([]row, 0, rowsPerBlock))
	}
	block := &s.rows[len(s.rows)-1]
	*block = append(*block, row{})
	s.fill(&(*block)[len(*block)-1], m)
	s.count++
	return s.count - 1
}

// Replace overwrites message i, for a file that changed since it was read. The
// old text stays in the arena: see Waste.
func (s *Shard) Replace(i int, m *postfix.Message) {
	s.waste++
	s.fill(s.row(i), m)
}

// Remove takes message i out and moves the last one into its place.
func (s *Shard) Remove(i int) {
	s.waste++
	s.count--
	*s.row(i) = *s.row(s.count)
	block := s.count / rowsPerBlock
	s.rows[block] = s.rows[block][:s.count%rowsPerBlock]
	s.rows = s.rows[:(s.count+rowsPerBlock-1)/rowsPerBlock]
}

// Waste returns how many messages were replaced or removed: their text and
// recipients still take space until the shard is written anew by Compact.
func (s *Shard) Waste() int { return s.waste }

// Fork returns a shard with the same messages that can be changed while s, as
// part of a finished Snapshot, cannot. The text is shared: it is only ever
// appended to, behind everything that s can see. Only the newest shard of a
// line may be forked.
func (s *Shard) Fork() *Shard {
	f := *s
	f.rows = make([][]row, len(s.rows))
	for i, block := range s.rows {
		f.rows[i] = append(make([]row, 0, rowsPerBlock), block...)
	}
	f.rcpts, f.fails, f.text = slices.Clone(s.rcpts), slices.Clone(s.fails), slices.Clone(s.text)
	f.origins.rows, f.reasons.rows, f.odds.rows = slices.Clone(s.origins.rows), slices.Clone(s.reasons.rows), slices.Clone(s.odds.rows)
	return &f
}

// Compact returns a shard with the same messages in the same order and no waste.
func (s *Shard) Compact() *Shard {
	c := NewShard()
	var m postfix.Message
	for i := range s.count {
		s.Get(i, &m)
		c.Add(&m)
	}
	return c
}

// ID returns the queue ID of message i.
func (s *Shard) ID(i int) postfix.QueueID { return postfix.QueueID(s.at(s.row(i).id)) }

// SameFile reports whether message i was read from a file that still has these
// attributes: then it needs no second reading. Every write, chmod, rename and
// change of the other times sets the ctime, which is compared to the
// microsecond.
func (s *Shard) SameFile(i int, inode uint64, size int64, ctime time.Time) bool {
	r := s.row(i)
	return r.inode == inode && r.file == size && r.changed == toMicro(ctime)
}

// SameMessage reports whether message i is the one that m is: the same file
// with the same arrival, perhaps in another queue by now.
func (s *Shard) SameMessage(i int, m *postfix.Message) bool {
	r := s.row(i)
	return r.inode == m.Inode && r.arrival == toMicro(m.Arrival) && s.at(r.id) == string(m.ID)
}

func (s *Shard) row(i int) *row { return &s.rows[i/rowsPerBlock][i%rowsPerBlock] }

func (s *Shard) fill(r *row, m *postfix.Message) {
	*r = row{
		inode: m.Inode, queue: m.Queue,
		arrival: toMicro(m.Arrival), created: toSeconds(m.Created), changed: toMicro(m.Changed), try: toMicro(m.NextTry),
		size: m.Size, file: m.FileSize, data: uint32(min(m.DataOffset, math.MaxUint32)), //nolint:gosec // decoded as non-negative
		id: s.put(string(m.ID)), sender: s.shared(m.Sender), origin: s.origin(m), odd: s.odd(m),
		firstRcpt: s.nrcpt, rcpts: uint32(len(m.Recipients)), //nolint:gosec // bounded by the file size
		total: uint32(m.TotalRecipients), done: uint32(m.Done), //nolint:gosec // decoded as non-negative
	}
	if m.ForceExpire {
		r.flags |= flagExpire
	}
	if m.FlushRequested {
		r.flags |= flagFlush
	}
	if m.SMTPUTF8 {
		r.flags |= flagUTF8
	}
	for i := range m.Recipients {
		s.addRecipient(&m.Recipients[i])
	}
}

// odd keeps what only few messages have; 0 where this one has nothing of it.
func (s *Shard) odd(m *postfix.Message) uint32 {
	if m.ContentLength == m.Size && m.MessageID == "" && m.Damage == "" && len(m.Bounces) == 0 {
		return 0
	}
	r := oddRow{
		content: m.ContentLength, messageID: s.put(m.MessageID), damage: s.shared(m.Damage),
		firstFail: s.nfail, fails: uint32(len(m.Bounces)), //nolint:gosec // bounded by the file size
	}
	for _, f := range m.Bounces {
		s.fails = appendBlock(s.fails, int(s.nfail), failRow{offset: f.Offset, address: s.put(f.Address), status: s.shared(f.Status), reason: s.shared(f.Reason)})
		s.nfail++
	}
	return s.odds.add(uint64(s.odds.count), r) //nolint:gosec // a count
}

func (s *Shard) origin(m *postfix.Message) uint32 {
	texts := [...]string{m.Client.Name, m.Client.Address, m.Client.Helo, m.Client.Protocol, m.SASLUser, m.Filter, m.Redirect}
	hash := s.hash(texts[:])
	n, ok := s.origins.find(hash, func(r *originRow) bool {
		return texts == [...]string{s.at(r.client), s.at(r.address), s.at(r.helo), s.at(r.protocol), s.at(r.sasl), s.at(r.filter), s.at(r.redirect)}
	})
	if ok {
		return n
	}
	return s.origins.add(hash, originRow{
		client: s.shared(m.Client.Name), address: s.shared(m.Client.Address), helo: s.shared(m.Client.Helo), protocol: s.shared(m.Client.Protocol),
		sasl: s.shared(m.SASLUser), filter: s.shared(m.Filter), redirect: s.shared(m.Redirect),
	})
}

// hash is of several texts; that different lists can share one is for the
// caller to see.
func (s *Shard) hash(texts []string) uint64 {
	var h uint64
	for _, t := range texts {
		h = h*0x9E3779B97F4A7C15 + maphash.String(s.seed, t)
	}
	return h
}

func (s *Shard) addRecipient(r *postfix.Recipient) {
	s.rcpts = appendBlock(s.rcpts, int(s.nrcpt), rcptRow{
		offset: r.Offset, address: s.put(r.Address), original: s.put(r.Original), hop: s.shared(r.NextHop), reason: s.reason(r),
	})
	s.nrcpt++
}

func (s *Shard) reason(r *postfix.Recipient) uint32 {
	if r.Reason == "" && r.Status == "" && r.Host == "" {
		return 0
	}
	text, quotes := s.unquoted(r)
	texts := [...]string{text, r.Status, r.Host}
	hash := s.hash(texts[:])
	n, ok := s.reasons.find(hash, func(row *reasonRow) bool {
		return row.quotes == quotes && texts == [...]string{s.at(row.reason), s.at(row.status), s.at(row.host)} &&
			(r.Cause == postfix.NoCause || s.at(row.cause) == string(r.Cause))
	})
	if ok {
		return n
	}
	return s.reasons.add(hash, reasonRow{
		reason: s.put(text), status: s.shared(r.Status), host: s.shared(r.Host), cause: s.cause(r, text), quotes: quotes,
	})
}

// cause returns the class of a reason. Long numbers (tickets, sizes, times) make
// reasons differ that are of one class, so classes are remembered without them.
func (s *Shard) cause(r *postfix.Recipient, text string) ref {
	if r.Cause != postfix.NoCause {
		return s.shared(string(r.Cause))
	}
	s.masked = postfix.AppendMasked(append(append(s.masked[:0], r.Status...), ' '), text)
	if c, ok := s.causes[string(s.masked)]; ok {
		return c
	}
	// Classified without the address: what a recipient is called says nothing
	// about why mail to him waits.
	c := s.shared(string(postfix.Classify(r.Status, text)))
	if len(s.causes) < maxInterned {
		s.causes[string(s.masked)] = c
	}
	return c
}

// unquoted returns the reason with the recipient's address taken out: servers
// quote it in their replies, and without it ten thousand different texts become
// one. The text is lent until the next call.
func (s *Shard) unquoted(r *postfix.Recipient) (text string, quotes bool) {
	at := strings.Index(r.Reason, r.Address)
	// Without an @ it is a word like any other, and may be part of one.
	if at < 0 || strings.IndexByte(r.Address, '@') < 0 || strings.IndexByte(r.Reason, placeholder) >= 0 {
		return r.Reason, false
	}
	s.scratch = s.scratch[:0]
	rest := r.Reason
	for ; at >= 0; at = strings.Index(rest, r.Address) {
		s.scratch = append(append(s.scratch, rest[:at]...), placeholder)
		rest = rest[at+len(r.Address):]
	}
	s.scratch = append(s.scratch, rest...)
	return unsafe.String(&s.scratch[0], len(s.scratch)), true //nolint:gosec // copied before the next call
}

func appendBlock[T any](blocks [][]T, n int, v T) [][]T {
	if n%rowsPerBlock == 0 {
		blocks = append(blocks, make([]T, 0, rowsPerBlock))
	}
	last := len(blocks) - 1
	blocks[last] = append(blocks[last], v)
	return blocks
}

// shared stores a text that is likely to come again. The table is bounded:
// hostile mail can make every text different, and then it costs no more than
// storing each.
func (s *Shard) shared(text string) ref {
	if text == "" {
		return 0
	}
	if r, ok := s.intern[text]; ok {
		return r
	}
	r := s.put(text)
	if len(s.intern) < maxInterned {
		s.intern[s.at(r)] = r
	}
	return r
}

// put stores a text. Texts over 16 KiB are cut: no SMTP path, reply or header
// that Postfix stores in one record is longer (line_length_limit), and a
// forged one must not grow the snapshot.
func (s *Shard) put(text string) ref {
	if text == "" {
		return 0
	}
	if len(text) > maxTextBytes {
		text = text[:maxTextBytes]
	}
	last := len(s.text) - 1
	if last < 0 || cap(s.text[last])-len(s.text[last]) < len(text)+2 {
		s.text = append(s.text, make([]byte, 2, bytesPerArena)) // no text starts at 0
		last++
	}
	at := len(s.text[last])
	s.text[last] = append(binary.LittleEndian.AppendUint16(s.text[last], uint16(len(text))), text...) //nolint:gosec // cut above
	return ref(uint32(last)<<arenaBits | uint32(at))                                                  //nolint:gosec // bounded by Full and the block size
}

// Full reports that the arena is near the 4 GiB that a ref can address; the
// reader then goes on in a new shard.
func (s *Shard) Full() bool { return len(s.text) >= maxBlocks }

// at returns the text without copying it. Arena bytes are never rewritten once
// they are stored, which is what makes sharing them as a string sound.
func (s *Shard) at(r ref) string {
	if r == 0 {
		return ""
	}
	b := s.text[r>>arenaBits][r&arenaIndexMask:]
	n := binary.LittleEndian.Uint16(b)
	return unsafe.String(&b[2], int(n)) //nolint:gosec // see above: the bytes stay as they are
}

// Get fills m with message i, as Snapshot.At does.
func (s *Shard) Get(i int, m *postfix.Message) {
	r := s.row(i)
	from, odd := s.origins.at(r.origin), oddRow{content: r.size}
	if r.odd > 0 {
		odd = s.odds.at(r.odd)
	}
	rcpts, fails := m.Recipients[:0], m.Bounces[:0]
	*m = postfix.Message{
		Queue: r.queue, ID: postfix.QueueID(s.at(r.id)), Inode: r.inode,
		Arrival: fromMicro(r.arrival), Created: fromSeconds(r.created), Changed: fromMicro(r.changed), NextTry: fromMicro(r.try),
		Size: r.size, ContentLength: odd.content, DataOffset: int64(r.data), FileSize: r.file,
		Sender: s.at(r.sender), TotalRecipients: int(r.total), Done: int(r.done),
		ForceExpire: r.flags&flagExpire != 0, FlushRequested: r.flags&flagFlush != 0, SMTPUTF8: r.flags&flagUTF8 != 0,
		Client:   postfix.Client{Name: s.at(from.client), Address: s.at(from.address), Helo: s.at(from.helo), Protocol: s.at(from.protocol)},
		SASLUser: s.at(from.sasl), Filter: s.at(from.filter), Redirect: s.at(from.redirect),
		MessageID: s.at(odd.messageID), Damage: s.at(odd.damage),
	}
	for k := range r.rcpts {
		rcpts = append(rcpts, s.recipient(r.firstRcpt+k))
	}
	for k := range odd.fails {
		f := &s.fails[(odd.firstFail+k)/rowsPerBlock][(odd.firstFail+k)%rowsPerBlock]
		fails = append(fails, postfix.Failure{Address: s.at(f.address), Offset: f.offset, Status: s.at(f.status), Reason: s.at(f.reason)})
	}
	m.Recipients, m.Bounces = rcpts, fails
}

func (s *Shard) recipient(i uint32) postfix.Recipient {
	r := &s.rcpts[i/rowsPerBlock][i%rowsPerBlock]
	why := s.reasons.at(r.reason)
	out := postfix.Recipient{
		Offset: r.offset, Address: s.at(r.address), Original: s.at(r.original), NextHop: s.at(r.hop),
		Status: s.at(why.status), Host: s.at(why.host), Reason: s.at(why.reason), Cause: postfix.Cause(s.at(why.cause)),
	}
	if why.quotes {
		out.Reason = strings.ReplaceAll(out.Reason, string(rune(placeholder)), out.Address)
	}
	return out
}

func toSeconds(t time.Time) uint32 {
	if t.IsZero() {
		return 0
	}
	return uint32(min(max(t.Unix(), 0), math.MaxUint32))
}

func fromSeconds(sec uint32) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(int64(sec), 0).UTC()
}

func toMicro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
