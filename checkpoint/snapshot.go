package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// scanTries: a tree that changes while it is walked is tried this often.
const scanTries = 3

// Snapshot stores the tree and says what changed since the last Snapshot or
// Restore. Files whose lstat did not change are not opened. The contents that the
// store does not have are in the returned Batch, which the caller seals or aborts;
// after an Abort the next Snapshot brings them again.
//
// It fails, naming the path, when something cannot be recorded: a device, a mount
// point, a file of somebody else's that may not be read, or a tree that keeps
// changing.
func (t *Tracker) Snapshot(ctx context.Context, st Store) (Snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for try := 1; ; try++ {
		s, err := t.snapshot(ctx, st)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errChanged) || try == scanTries {
			return Snapshot{}, fmt.Errorf("snapshot %s: %w", t.root, err)
		}
	}
}

func (t *Tracker) snapshot(ctx context.Context, st Store) (snap Snapshot, err error) {
	k, err := t.enter()
	if err != nil {
		return Snapshot{}, err
	}
	defer func() {
		if lerr := k.leave(); lerr != nil && err == nil {
			if snap.Batch != nil {
				snap.Batch.Abort()
			}
			snap, err = Snapshot{}, lerr
		}
	}()
	s, err := t.scan(ctx, k, scanOptions{keep: true})
	if err != nil {
		return Snapshot{}, err
	}
	put, batch, err := s.store(ctx, st)
	if err != nil {
		return Snapshot{}, err
	}
	m, changes := s.commit()
	t.unconfirmed = put
	return Snapshot{Manifest: m, Changes: changes, Batch: batch}, nil
}

// store puts the contents that st does not have into a batch, nil for none, and
// returns their hashes.
func (s *scan) store(ctx context.Context, st Store) (map[Hash]struct{}, Batch, error) {
	ask := map[Hash]*pend{}
	for _, p := range s.pends {
		if p.e.Kind != KindFile || p.e.HardlinkTo != "" {
			continue
		}
		if !p.fresh && p.n.e.Kind == KindFile && p.n.e.Hash == p.e.Hash {
			continue // stored before, or unconfirmed and asked for below
		}
		if old := ask[p.e.Hash]; old == nil || old.content == nil {
			ask[p.e.Hash] = p
		}
	}
	if len(ask) == 0 && len(s.t.unconfirmed) == 0 {
		return nil, nil, nil
	}
	hs := make([]Hash, 0, len(ask)+len(s.t.unconfirmed))
	for h := range ask {
		hs = append(hs, h)
	}
	for h := range s.t.unconfirmed {
		if ask[h] == nil {
			hs = append(hs, h)
		}
	}
	have, err := st.Have(ctx, hs)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the store for %d contents: %w", len(hs), err)
	}
	if len(have) != len(hs) {
		return nil, nil, fmt.Errorf("ask the store for %d contents: it answered for %d", len(hs), len(have))
	}
	var jobs []*pend
	missing := map[Hash]struct{}{}
	for i, h := range hs {
		if have[i] {
			continue
		}
		if p := ask[h]; p != nil {
			jobs = append(jobs, p)
		} else {
			missing[h] = struct{}{}
		}
	}
	jobs = append(jobs, s.find(missing)...)
	if len(jobs) == 0 {
		return nil, nil, nil
	}
	batch, err := s.put(ctx, st, jobs)
	if err != nil {
		return nil, nil, err
	}
	put := make(map[Hash]struct{}, len(jobs))
	for _, p := range jobs {
		put[p.e.Hash] = struct{}{}
	}
	return put, batch, nil
}

// find looks for files that still have contents of which the store, asked again,
// knows nothing: the batch before was dropped.
func (s *scan) find(missing map[Hash]struct{}) []*pend {
	if len(missing) == 0 {
		return nil
	}
	var jobs []*pend
	take := func(e *Entry, st stat) {
		if _, ok := missing[e.Hash]; ok && e.Kind == KindFile && e.HardlinkTo == "" {
			delete(missing, e.Hash)
			jobs = append(jobs, &pend{e: *e, st: st})
		}
	}
	dirty := make(map[*node]bool, len(s.pends))
	for _, p := range s.pends {
		dirty[p.n] = true
		take(&p.e, p.st)
	}
	var visit func(n *node)
	visit = func(n *node) {
		if n.gen == s.walk.gen && !dirty[n] {
			take(&n.e, n.st)
		}
		for _, c := range n.children {
			visit(c)
		}
	}
	visit(s.t.top)
	return jobs
}

// put gives contents to a new batch. What was not kept in memory is read again,
// and must still be what was hashed.
func (s *scan) put(ctx context.Context, st Store, jobs []*pend) (Batch, error) {
	batch, err := st.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin a batch of %d contents: %w", len(jobs), err)
	}
	err = s.t.parallel(ctx, s.keys, len(jobs), func(ctx context.Context, r *reader, i int) error {
		p := jobs[i]
		if err := s.putOne(ctx, batch, r, p); err != nil {
			return fmt.Errorf("store %q: %w", p.e.Path, err)
		}
		p.content = nil
		return nil
	})
	if err != nil {
		batch.Abort()
		return nil, err
	}
	return batch, nil
}

func (s *scan) putOne(ctx context.Context, b Batch, r *reader, p *pend) (err error) {
	if p.content != nil {
		return b.Put(p.e.Hash, p.content)
	}
	fd, done, err := s.keys.openFile(p.e.Path)
	if err != nil {
		return pathError("open", p.e.Path, err)
	}
	defer func() {
		unix.Close(fd)
		err = errors.Join(err, done())
	}()
	st, err := statFd(fd)
	if err != nil {
		return err
	}
	if st.ino != p.st.ino || st.dev != p.st.dev || st.kind() != KindFile {
		return errChanged
	}
	if p.e.Size <= smallFile {
		h, _, content, err := r.content(ctx, fd, p.e.Size, false)
		if err != nil {
			return err
		}
		if h != p.e.Hash {
			return errChanged
		}
		if content == nil {
			content = r.small[:p.e.Size]
		}
		return b.Put(h, content)
	}
	h, n, err := b.PutReader(io.LimitReader(fdReader{ctx, fd}, p.e.Size+1))
	if err != nil {
		return err
	}
	if h != p.e.Hash || n != p.e.Size {
		return errChanged
	}
	return nil
}
