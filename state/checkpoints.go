package state

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"flowrun.dev/flow/checkpoint"
)

// How a checkpoint is stored.
const (
	formFull  = "full"  // the whole manifest
	formDelta = "delta" // what leads to it from another row's tree
	formSame  = "same"  // another row's tree
)

// A chain of deltas ends when they take half as much as the full manifest that
// they begin with: reading one then costs at most 1.5 manifests, and writing them
// all not more than a constant factor of what changed. maxChain bounds the rows.
const (
	chainShare = 2
	maxChain   = 256
)

// stagedCheckpoint is a row that waits for the Append whose event names it.
type stagedCheckpoint struct {
	id, run, parent string
	n               int64
	form            string
	base            int64 // n of the row that data builds on, 0 for none
	baseID          string
	chain           int64
	entries         int
	size            int64
	codec           int
	digest          []byte
	data            []byte
}

// tree is the newest checkpoint of a run, so that the next is a delta on it
// without reading anything back.
type tree struct {
	id     string
	n      int64
	base   int64 // the row that holds its manifest or delta: itself, unless form is same
	baseID string
	m      *checkpoint.Manifest
	full   int64 // size of the full manifest at the chain's start
	chain  int64 // bytes of deltas since
	links  int   // rows since
}

// StageCheckpoint seals the snapshot's contents and keeps its row in memory until
// an Append of the run's owner names the id that it returns; the Append then
// stores both. parent is the checkpoint that snap.Changes lead from, "" for none.
// An unchanged tree costs the same however large it is.
func (s *Store) StageCheckpoint(ctx context.Context, run string, snap checkpoint.Snapshot, parent string) (string, error) {
	if err := context.Cause(ctx); err != nil {
		return "", fmt.Errorf("stage checkpoint of run %s: %w", run, err)
	}
	if snap.Manifest == nil {
		return "", fmt.Errorf("stage checkpoint of run %s: there is no manifest", run)
	}
	if snap.Batch != nil {
		if err := snap.Batch.Seal(); err != nil {
			return "", fmt.Errorf("stage checkpoint of run %s: %w", run, err)
		}
	}
	s.lmu.Lock()
	defer s.lmu.Unlock()
	t, err := s.parentTree(ctx, run, parent)
	if err != nil {
		return "", wrap("stage checkpoint of run "+run, err)
	}
	c, next := s.encodeCheckpoint(run, parent, t, &snap)
	s.staged[c.id] = c
	s.trees[run] = next
	return c.id, nil
}

// parentTree finds where the delta begins and the next number; lmu is held. The
// tree's m is nil when there is no parent.
func (s *Store) parentTree(ctx context.Context, run, parent string) (*tree, error) {
	t := s.trees[run]
	if t != nil && t.id == parent {
		return t, nil
	}
	last := int64(0)
	if t != nil {
		last = t.n
	} else if err := s.read.QueryRowContext(ctx,
		"SELECT coalesce(max(c.n), 0) FROM runs r JOIN checkpoints c ON c.key > r.key << 32 AND c.key < (r.key + 1) << 32 WHERE r.id = ?", run).
		Scan(&last); err != nil {
		return nil, err
	}
	if parent == "" {
		return &tree{n: last}, nil
	}
	parentRun, _, err := parseCheckpointID(parent)
	if err != nil {
		return nil, err
	}
	m, err := s.manifest(ctx, parent)
	if err != nil {
		return nil, err
	}
	out := &tree{n: last, m: m}
	if parentRun == run {
		// The chain goes on from the parent's row; its length is not known here, so
		// the next one is stored whole, which costs no more than reading it did.
		out.full = 0
	}
	return out, nil
}

// encodeCheckpoint makes the row of snap on top of t, and the tree that it is.
func (s *Store) encodeCheckpoint(run, parent string, t *tree, snap *checkpoint.Snapshot) (*stagedCheckpoint, *tree) {
	n := t.n + 1
	c := &stagedCheckpoint{id: checkpointID(run, n), run: run, parent: parent, n: n, entries: len(snap.Manifest.Entries)}
	next := &tree{id: c.id, n: n, m: snap.Manifest}
	onto := t.m != nil && t.base != 0 && leads(t.m, snap)
	if onto && len(snap.Changes) == 0 {
		c.form, c.base, c.baseID, c.chain = formSame, t.base, t.baseID, t.chain
		next.base, next.baseID, next.full, next.chain, next.links = t.base, t.baseID, t.full, t.chain, t.links
		return c, next
	}
	if onto && t.links < maxChain {
		delta := snap.EncodeDelta(t.m)
		if chain := t.chain + int64(len(delta)); chain <= t.full/chainShare {
			c.form, c.base, c.baseID, c.chain = formDelta, t.base, t.baseID, chain
			s.fill(c, delta)
			next.base, next.baseID, next.full, next.chain, next.links = n, c.id, t.full, chain, t.links+1
			return c, next
		}
	}
	full, _ := snap.Manifest.MarshalBinary() // its error is always nil
	c.form = formFull
	s.fill(c, full)
	next.base, next.baseID, next.full = n, c.id, c.size
	return c, next
}

func (s *Store) fill(c *stagedCheckpoint, b []byte) {
	sum := sha256.Sum256(b)
	c.size, c.digest = int64(len(b)), sum[:]
	c.codec, c.data = s.codec.compress(b)
}

// leads reports whether the changes can lead from m to the snapshot: a caller
// that names the wrong parent gets a whole manifest instead of a wrong delta.
func leads(m *checkpoint.Manifest, snap *checkpoint.Snapshot) bool {
	n := len(m.Entries)
	for i := range snap.Changes {
		switch snap.Changes[i].Op {
		case checkpoint.OpAdded:
			n++
		case checkpoint.OpDeleted:
			n--
		}
	}
	return n == len(snap.Manifest.Entries)
}

// storeCheckpoint stores the row that an event names, and the rows that it builds
// on. One that is stored already must be of this directory.
func (c *change) storeCheckpoint(id string, seq int64) error {
	s := c.o.s
	s.lmu.Lock()
	staged := s.staged[id]
	s.lmu.Unlock()
	if staged == nil {
		return c.knownCheckpoint(id)
	}
	if slices.Contains(c.checkpoints, staged) {
		return nil
	}
	if staged.run != c.o.run {
		return fmt.Errorf("store checkpoint %s: it was staged for run %s", id, staged.run)
	}
	var base driver.Value
	if staged.base != 0 {
		s.lmu.Lock()
		_, waits := s.staged[staged.baseID] // stored otherwise
		s.lmu.Unlock()
		if waits {
			if err := c.storeCheckpoint(staged.baseID, seq); err != nil {
				return err
			}
		}
		base = rowKey(c.o.row.key, staged.base)
	}
	var data driver.Value
	if staged.form != formSame {
		data = staged.data
	}
	_, err := c.w.exec(`INSERT INTO checkpoints (key, run, n, id, seq, parent, form, base, chain, entries, size, codec, digest, data)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		rowKey(c.o.row.key, staged.n), c.o.row.key, staged.n, id, seq, staged.parent, staged.form, base, staged.chain,
		int64(staged.entries), staged.size, int64(staged.codec), blobOrNull(staged.digest), data)
	if err != nil {
		return fmt.Errorf("insert checkpoint %s: %w", id, err)
	}
	c.checkpoints = append(c.checkpoints, staged)
	return nil
}

func blobOrNull(b []byte) driver.Value {
	if b == nil {
		return nil
	}
	return b
}

func (c *change) knownCheckpoint(id string) error {
	run, n, err := parseCheckpointID(id)
	if err != nil {
		return err
	}
	row, err := c.w.row("SELECT c.id FROM runs r JOIN checkpoints c ON c.key = (r.key << 32) | ? WHERE r.id = ?", n, run)
	if err != nil {
		return err
	}
	if row == nil || row[0] != id {
		return fmt.Errorf("checkpoint %s: %w", id, errUnknownCheckpoint)
	}
	return nil
}

// checkpointRow is one stored or staged row, ready to be read.
type checkpointRow struct {
	id, parent, form string
	n, base          int64
	entries          int
	size             int64
	codec            int
	digest, data     []byte
}

// stagedRow is the row that waits in memory, nil when none does; lmu is held.
func (s *Store) stagedRow(run string, n int64) *checkpointRow {
	for _, c := range s.staged {
		if c.run == run && c.n == n {
			return &checkpointRow{id: c.id, parent: c.parent, form: c.form, n: n, base: c.base,
				entries: c.entries, size: c.size, codec: c.codec, digest: c.digest, data: c.data}
		}
	}
	return nil
}

func (s *Store) checkpointRow(ctx context.Context, run string, n int64) (*checkpointRow, error) {
	s.lmu.Lock()
	r := s.stagedRow(run, n)
	s.lmu.Unlock()
	if r != nil {
		return r, nil
	}
	return s.storedRow(ctx, run, n)
}

func (s *Store) storedRow(ctx context.Context, run string, n int64) (*checkpointRow, error) {
	r := &checkpointRow{n: n}
	err := s.read.QueryRowContext(ctx, `SELECT c.id, c.parent, c.form, coalesce(c.base & 4294967295, 0), c.entries, c.size, c.codec, c.digest, c.data
		FROM runs r JOIN checkpoints c ON c.key = (r.key << 32) | ? WHERE r.id = ?`, n, run).
		Scan(&r.id, &r.parent, &r.form, &r.base, &r.entries, &r.size, &r.codec, &r.digest, &r.data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("checkpoint %d of run %s: %w", n, run, ErrNotFound)
	}
	return r, err
}

// Manifest reads a checkpoint's tree: stored, or staged by this process.
// ErrNotFound for an unknown id, ErrCorrupt when what is stored is damaged.
func (s *Store) Manifest(ctx context.Context, id string) (*checkpoint.Manifest, error) {
	s.lmu.Lock()
	for _, t := range s.trees {
		if t.id == id {
			s.lmu.Unlock()
			return t.m, nil
		}
	}
	s.lmu.Unlock()
	return s.manifestFrom(ctx, id, s.checkpointRow)
}

// manifest is Manifest for who holds lmu.
func (s *Store) manifest(ctx context.Context, id string) (*checkpoint.Manifest, error) {
	return s.manifestFrom(ctx, id, func(ctx context.Context, run string, n int64) (*checkpointRow, error) {
		if r := s.stagedRow(run, n); r != nil {
			return r, nil
		}
		return s.storedRow(ctx, run, n)
	})
}

type rowReader func(ctx context.Context, run string, n int64) (*checkpointRow, error)

func (s *Store) manifestFrom(ctx context.Context, id string, read rowReader) (*checkpoint.Manifest, error) {
	run, n, err := parseCheckpointID(id)
	if err != nil {
		return nil, err
	}
	row, err := read(ctx, run, n)
	if err == nil && row.id != id {
		err = fmt.Errorf("%w: its number belongs to %s", ErrNotFound, row.id)
	}
	if err != nil {
		return nil, wrap("read checkpoint "+id, err)
	}
	entries := row.entries
	var deltas [][]byte // newest first
	for row.form != formFull {
		if row.form == formDelta {
			b, err := s.payload(row)
			if err != nil {
				return nil, err
			}
			deltas = append(deltas, b)
		}
		if row.base <= 0 || row.base >= row.n {
			return nil, corrupt("read checkpoint "+id, "row %d builds on row %d", row.n, row.base)
		}
		if row, err = read(ctx, run, row.base); err != nil {
			return nil, wrap("read checkpoint "+id, err)
		}
	}
	return s.assemble(id, row, deltas, entries)
}

func (s *Store) assemble(id string, full *checkpointRow, deltas [][]byte, entries int) (*checkpoint.Manifest, error) {
	b, err := s.payload(full)
	if err != nil {
		return nil, err
	}
	m := &checkpoint.Manifest{}
	if err := m.UnmarshalBinary(b); err != nil {
		return nil, corrupt("read checkpoint "+id, "%w", err)
	}
	slices.Reverse(deltas)
	if len(deltas) > 0 {
		if m, err = checkpoint.ApplyDeltas(m, deltas...); err != nil {
			return nil, corrupt("read checkpoint "+id, "%w", err)
		}
	}
	if len(m.Entries) != entries {
		return nil, corrupt("read checkpoint "+id, "it has %d entries instead of %d", len(m.Entries), entries)
	}
	return m, nil
}

// payload expands and checks a row's data.
func (s *Store) payload(r *checkpointRow) ([]byte, error) {
	name := "read checkpoint " + r.id
	b, err := s.codec.expand(r.codec, r.data, r.size)
	if err != nil {
		return nil, corrupt(name, "%w", err)
	}
	if len(r.digest) != len(checkpoint.Hash{}) {
		return nil, corrupt(name, "it has no digest")
	}
	return b, verifyBytes(name, checkpoint.Hash(r.digest), b)
}

// Changes lists what leads to a checkpoint from its parent, sorted by path; from
// the empty tree when it has none.
func (s *Store) Changes(ctx context.Context, id string) ([]checkpoint.Change, error) {
	run, n, err := parseCheckpointID(id)
	if err != nil {
		return nil, err
	}
	row, err := s.checkpointRow(ctx, run, n)
	if err != nil {
		return nil, wrap("read changes of checkpoint "+id, err)
	}
	next, err := s.Manifest(ctx, id)
	if err != nil {
		return nil, err
	}
	var base *checkpoint.Manifest
	if row.parent != "" {
		if base, err = s.Manifest(ctx, row.parent); err != nil {
			return nil, err
		}
	}
	return checkpoint.Diff(base, next), nil
}

// settle forgets what an Append has stored.
func (s *Store) settle(checkpoints []*stagedCheckpoint, logs []*stagedLog) {
	if len(checkpoints) == 0 && len(logs) == 0 {
		return
	}
	s.lmu.Lock()
	for _, c := range checkpoints {
		delete(s.staged, c.id)
	}
	for _, l := range logs {
		delete(s.logs, l.ref)
	}
	s.lmu.Unlock()
	for _, l := range logs {
		l.stored()
	}
}

// dropStaged forgets what was staged for a run and never named.
func (s *Store) dropStaged(run string) {
	s.lmu.Lock()
	defer s.lmu.Unlock()
	for id, c := range s.staged {
		if c.run == run {
			delete(s.staged, id)
		}
	}
	for ref, l := range s.logs {
		if l.name.run == run {
			delete(s.logs, ref)
		}
	}
	delete(s.trees, run)
}
