package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"holdfast/durable"
)

// The text of a checkpoint: origin, number of entries, root of the Merkle tree
// over their lines (RFC 6962), hash of the last entry, time. The signed note
// around it is that of Go's checksum database, for which tools exist.
const (
	origin     = "holdfast audit log"
	signerName = "holdfast-audit"
	// signatureLength is that of a key hash and an Ed25519 signature in base64.
	signatureLength = 92
	maxCheckpoints  = 64 << 20
)

// tree is the right edge of a Merkle tree, which is all that it takes to add
// leaves and to tell the root.
type tree struct {
	leaves uint64
	peaks  []tlog.Hash // of the full subtrees, largest first: one for each bit of leaves
}

// add adds the line of an entry, without its line end.
func (t *tree) add(line []byte) {
	h := tlog.RecordHash(line)
	for n := t.leaves; n&1 == 1; n >>= 1 {
		last := len(t.peaks) - 1
		h, t.peaks = tlog.NodeHash(t.peaks[last], h), t.peaks[:last]
	}
	t.peaks = append(t.peaks, h)
	t.leaves++
}

// root must not be asked of an empty tree.
func (t *tree) root() tlog.Hash {
	h := t.peaks[len(t.peaks)-1]
	for _, left := range slices.Backward(t.peaks[:len(t.peaks)-1]) {
		h = tlog.NodeHash(left, h)
	}
	return h
}

// checkpoint is what a signed note says.
type checkpoint struct {
	entries uint64
	root    tlog.Hash
}

// Checkpoint reads the log, signs its head, keeps the signed note beside the
// log, and returns it, so that it can be kept elsewhere too. It signs nothing
// where an entry is bad, or where the log is not the one that was signed before.
func (l *Log) Checkpoint() (string, error) {
	signer, verifier, err := l.readKey()
	if err != nil {
		return "", fmt.Errorf("make a checkpoint: %w", err)
	}
	file, err := durable.OpenAppend(filepath.Join(l.dir, CheckpointsName), 0o600)
	if err != nil {
		return "", fmt.Errorf("make a checkpoint: %w", err)
	}
	text, err := l.sign(file, signer, verifier)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", fmt.Errorf("make a checkpoint: %w", err)
	}
	return text, nil
}

// sign makes a checkpoint and appends it to the earlier ones.
func (l *Log) sign(file *durable.Appender, signer note.Signer, verifier note.Verifier) (string, error) {
	if file.Size() > maxCheckpoints {
		return "", fmt.Errorf("the checkpoints take %d bytes: %w", file.Size(), ErrDamaged)
	}
	earlier := make([]byte, file.Size())
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, file.Size()), earlier); err != nil {
		return "", fmt.Errorf("read the earlier checkpoints: %w", err)
	}
	if err := l.readOn(splitCheckpoints(earlier, verifier).good); err != nil {
		return "", err
	}
	text := fmt.Sprintf("%s\n%d\n%v\n%s\n%s\n", origin, l.tree.leaves, l.tree.root(), l.signed.Hash,
		time.Now().UTC().Format(time.RFC3339))
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	line := append(bytes.Clone(signed), '\n') // an empty line between one and the next
	if len(earlier) > 0 && earlier[len(earlier)-1] != '\n' {
		line = append([]byte("\n\n"), line...) // a crash cut the last one
	}
	if _, err := file.Append(line); err != nil {
		return "", err
	}
	return string(signed), nil
}

// readOn takes the entries since the last checkpoint into the tree.
func (l *Log) readOn(earlier []checkpoint) error {
	from := l.signed.Offset + int64(l.signed.Length)
	w := newWalk(io.NewSectionReader(l.file, from, l.file.Size()-from), head, l.signed)
	grown := tree{leaves: l.tree.leaves, peaks: slices.Clone(l.tree.peaks)}
	for w.next() {
		grown.add(w.text)
		for _, c := range earlier {
			if c.entries == grown.leaves && c.root != grown.root() {
				return fmt.Errorf("the first %d entries are not those that were signed: %w", c.entries, ErrDamaged)
			}
		}
	}
	if err := w.failure(); err != nil {
		return err
	}
	for _, c := range earlier {
		if c.entries > grown.leaves {
			return fmt.Errorf("there are %d entries, and %d were signed: %w", grown.leaves, c.entries, ErrDamaged)
		}
	}
	l.tree, l.signed = grown, w.last
	return nil
}

// split is what a file of checkpoints holds.
type split struct {
	good []checkpoint
	bad  []string // why
	cut  int      // not written to their end
}

// LastCheckpoint is the last whole checkpoint of a file of them, "" where there
// is none. It is not verified.
func LastCheckpoint(text []byte) string {
	parts := strings.Split("\n"+string(text), "\n"+origin+"\n")
	for _, part := range slices.Backward(parts[1:]) {
		msg := origin + "\n" + strings.TrimRight(part, "\n") + "\n"
		if signatureOf(msg) != "" {
			return msg
		}
	}
	return ""
}

// signatureOf is what a note is signed with, "" where that is not whole.
func signatureOf(msg string) string {
	_, signature, _ := strings.Cut(msg, "\n\n\u2014 "+signerName+" ")
	signature, _, _ = strings.Cut(signature, "\n")
	if len(signature) < signatureLength {
		return ""
	}
	return signature
}

// splitCheckpoints reads notes that follow each other, as the file of
// checkpoints holds them and as somebody may have added one from elsewhere.
func splitCheckpoints(text []byte, verifier note.Verifier) split {
	var s split
	for i, part := range strings.Split("\n"+string(text), "\n"+origin+"\n") {
		if i == 0 {
			continue // what stands in front of the first
		}
		msg := origin + "\n" + strings.TrimRight(part, "\n") + "\n"
		if signatureOf(msg) == "" {
			s.cut++
			continue
		}
		n, err := note.Open([]byte(msg), note.VerifierList(verifier))
		if err != nil {
			s.bad = append(s.bad, fmt.Sprintf("checkpoint %d: %v", i, err))
			continue
		}
		c, err := parseCheckpoint(n.Text)
		if err != nil {
			s.bad = append(s.bad, fmt.Sprintf("checkpoint %d: %v", i, err))
			continue
		}
		s.good = append(s.good, c)
	}
	return s
}

// parseCheckpoint reads the text of a note.
func parseCheckpoint(text string) (checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 6 || lines[0] != origin {
		return checkpoint{}, errors.New("its text is none of a checkpoint")
	}
	entries, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || entries == 0 {
		return checkpoint{}, errors.New("its number of entries is none")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return checkpoint{}, errors.New("its root is none")
	}
	return checkpoint{entries: entries, root: root}, nil
}
