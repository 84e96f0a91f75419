package state

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/checkpoint"
)

// GC says which runs may go. The zero value removes no run, only what none needs.
type GC struct {
	// OlderThan removes runs whose last event is older; 0 for no such bound.
	OlderThan time.Duration
	// Keep leaves the newest ones; -1 for no such bound.
	Keep int
	// MaxBytes removes the oldest runs until the state takes no more; 0 for no bound.
	MaxBytes int64
	// DryRun only says which runs would go.
	DryRun bool
}

// Collected is what Collect did.
type Collected struct {
	Runs     []string `json:"runs"`     // removed, oldest first
	Kept     []string `json:"kept"`     // would have gone, but are pinned or alive
	Contents int      `json:"contents"` // removed, that no run needed any more
	Freed    int64    `json:"freed_bytes"`
	// Busy: another process has the state open for writing, so that contents were
	// left for the next time.
	Busy bool `json:"busy"`
}

// Collect removes runs by age, number and size, and then the contents that no run
// needs. Pinned and living runs stay. A kill in the middle leaves runs whole or
// gone, and contents that the next Collect removes.
func (s *Store) Collect(ctx context.Context, g GC) (Collected, error) {
	var out Collected
	if s.use == nil {
		return out, &storageError{op: "collect", kind: ErrReadOnly, cause: errors.New("it was opened for reading only")}
	}
	before, err := s.bytes()
	if err != nil {
		return out, wrap("collect", err)
	}
	runs, err := s.Runs(ctx, Filter{})
	if err != nil {
		return out, err
	}
	doomed := map[string]bool{}
	for i, r := range runs { // newest first
		old := g.OlderThan > 0 && s.opts.Now().Sub(r.Updated) > g.OlderThan
		if !old && (g.Keep < 0 || i < g.Keep) {
			continue
		}
		if r.Pinned || r.Holder != nil {
			out.Kept = append(out.Kept, r.ID)
			continue
		}
		doomed[r.ID] = true
	}
	slices.Reverse(runs)
	for _, r := range runs {
		if doomed[r.ID] {
			if err := s.dropRun(ctx, r.ID, g.DryRun, &out); err != nil {
				return out, err
			}
		}
	}
	if g.DryRun {
		return out, nil
	}
	if err := s.sweep(ctx, &out); err != nil {
		return out, err
	}
	// Contents are shared, so what a run takes is only known once it has gone.
	for _, r := range runs {
		size, err := s.bytes()
		if err != nil {
			return out, wrap("collect", err)
		}
		if g.MaxBytes <= 0 || size <= g.MaxBytes || out.Busy {
			break
		}
		if doomed[r.ID] || r.Pinned || r.Holder != nil {
			continue
		}
		if err := s.dropRun(ctx, r.ID, false, &out); err != nil {
			return out, err
		}
		if err := s.sweep(ctx, &out); err != nil {
			return out, err
		}
	}
	after, err := s.bytes()
	out.Freed = max(0, before-after)
	return out, wrap("collect", err)
}

// dropRun removes one run: its rows in one transaction, then its directory.
func (s *Store) dropRun(ctx context.Context, id string, dry bool, out *Collected) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("remove run %s: %w", id, err)
	}
	if dry {
		out.Runs = append(out.Runs, id)
		return nil
	}
	lock, err := s.lock(id)
	if busy := (*BusyError)(nil); errors.As(err, &busy) {
		out.Kept = append(out.Kept, id)
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	err = s.tx(func(w *writer) error {
		_, err := w.exec("DELETE FROM runs WHERE id = ?", id)
		return err
	})
	if err == nil {
		err = os.RemoveAll(s.RunDir(id))
	}
	if err != nil {
		return wrap("remove run "+id, err)
	}
	// The lock's file last: while it is there, nobody takes the id for another run.
	_ = os.Remove(lock.Name())
	out.Runs = append(out.Runs, id)
	return nil
}

// bytes is what the state takes on disk.
func (s *Store) bytes() (int64, error) {
	var total int64
	for _, name := range []string{s.dbPath(), s.dbPath() + "-wal"} {
		if info, err := os.Stat(name); err == nil {
			total += info.Size()
		}
	}
	for _, dir := range []string{s.packsDir(), filepath.Join(s.dir, runsName)} {
		err := filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				if errors.Is(err, os.ErrNotExist) {
					return nil
				}
				return err
			}
			if info, err := e.Info(); err == nil {
				total += info.Size()
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return total, nil
}

// hashText finds what could be the hash of a content in an event: turns of
// conversations name theirs. One too many keeps a content, and does no harm.
var hashText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`"[0-9a-f]{64}"`) })

// sweep removes the contents that nothing reaches. Only while no other process has
// the state open for writing: it could be about to name one that it found here.
func (s *Store) sweep(ctx context.Context, out *Collected) error {
	err := setLock(s.use, unix.F_WRLCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		out.Busy = true
		return nil
	}
	if err != nil {
		return wrap("remove unused contents", err)
	}
	err = func() error {
		live, err := s.reachable(ctx)
		if err != nil {
			return err
		}
		n, err := s.dropContents(ctx, live)
		out.Contents += n
		if err != nil {
			return err
		}
		if err := s.compactPacks(ctx); err != nil {
			return err
		}
		if _, err := s.removeOrphans(ctx); err != nil {
			return err
		}
		if err := s.removeRunless(ctx); err != nil {
			return err
		}
		return s.shrink()
	}()
	return wrap("remove unused contents", errors.Join(err, setLock(s.use, unix.F_RDLCK)))
}

// removeRunless removes directories whose run has no row: of a removal that was cut.
func (s *Store) removeRunless(ctx context.Context) error {
	dirs, err := os.ReadDir(filepath.Join(s.dir, runsName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if validRunID(d.Name()) != nil || !d.IsDir() {
			continue // not ours
		}
		if _, _, err := s.runRow(ctx, d.Name()); !errors.Is(err, ErrNotFound) {
			if err != nil {
				return err
			}
			continue
		}
		if alive, err := s.IsAlive(d.Name()); err != nil || alive {
			continue
		}
		if err := os.RemoveAll(s.RunDir(d.Name())); err != nil {
			return err
		}
	}
	return nil
}

// reachable are the contents that a checkpoint's row or an event of any run names.
func (s *Store) reachable(ctx context.Context) (map[checkpoint.Hash]bool, error) {
	return s.reachableFrom(ctx, "")
}

// reachableFrom is reachable for the checkpoints and events that where selects.
func (s *Store) reachableFrom(ctx context.Context, where string, args ...any) (map[checkpoint.Hash]bool, error) {
	live := map[checkpoint.Hash]bool{}
	err := s.each(ctx, "SELECT id, form, size, codec, digest, data FROM (SELECT * FROM checkpoints "+where+") WHERE data IS NOT NULL", args, func(rows *sql.Rows) error {
		r := &checkpointRow{}
		if err := rows.Scan(&r.id, &r.form, &r.size, &r.codec, &r.digest, &r.data); err != nil {
			return err
		}
		b, err := s.payload(r)
		if err != nil {
			return err
		}
		// What a row names and a later one deleted is named by the earlier tree.
		err = checkpoint.EachHash(b, func(h checkpoint.Hash) { live[h] = true })
		if err != nil {
			return corrupt("read checkpoint "+r.id, "%w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return live, s.each(ctx, "SELECT body FROM events "+where, args, func(rows *sql.Rows) error {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			return err
		}
		for _, m := range hashText().FindAll(body, -1) {
			var h checkpoint.Hash
			if _, err := hex.Decode(h[:], m[1:len(m)-1]); err == nil {
				live[h] = true
			}
		}
		return nil
	})
}

// dropContents removes the rows of contents that are not live.
func (s *Store) dropContents(ctx context.Context, live map[checkpoint.Hash]bool) (int, error) {
	var dead [][]byte
	err := s.each(ctx, "SELECT hash FROM blobs", nil, func(rows *sql.Rows) error {
		var h []byte
		err := rows.Scan(&h)
		if err == nil && !live[checkpoint.Hash(h)] {
			dead = append(dead, slices.Clone(h))
		}
		return err
	})
	if err != nil || len(dead) == 0 {
		return 0, err
	}
	return len(dead), s.tx(func(w *writer) error {
		for _, h := range dead {
			if _, err := w.exec("DELETE FROM blobs WHERE hash = ?", h); err != nil {
				return err
			}
		}
		_, err := w.exec("DELETE FROM packs WHERE key NOT IN (SELECT pack FROM blobs WHERE pack IS NOT NULL)")
		return err
	})
}

// compactPacks writes the contents of packs that are less than half in use into a
// new one. The new pack is durable before the rows name it; the old file goes as an
// orphan, after they no longer name it.
func (s *Store) compactPacks(ctx context.Context) error {
	type sparse struct {
		key  int64
		name string
	}
	var list []sparse
	err := s.each(ctx, "SELECT p.key, p.name FROM packs p JOIN blobs b ON b.pack = p.key GROUP BY p.key HAVING sum(b.length) * 2 < p.bytes", nil, func(rows *sql.Rows) error {
		var p sparse
		err := rows.Scan(&p.key, &p.name)
		list = append(list, p)
		return err
	})
	if err != nil || len(list) == 0 {
		return err
	}
	pack, err := s.createPack()
	if err != nil {
		return err
	}
	type moved struct {
		hash []byte
		off  int64
	}
	var all []moved
	err = func() error {
		for _, p := range list {
			f, err := os.Open(filepath.Join(s.packsDir(), p.name))
			if err != nil {
				return err
			}
			err = s.each(ctx, "SELECT hash, off, length FROM blobs WHERE pack = ?", []any{p.key}, func(rows *sql.Rows) error {
				var hash []byte
				var off, length int64
				if err := rows.Scan(&hash, &off, &length); err != nil {
					return err
				}
				all = append(all, moved{slices.Clone(hash), pack.off})
				n, err := io.Copy(pack, io.NewSectionReader(f, off, length))
				if err == nil && n != length {
					err = corrupt("move contents", "pack %s is cut", p.name)
				}
				return err
			})
			f.Close()
			if err != nil {
				return err
			}
		}
		if err := pack.finish(); err != nil {
			return err
		}
		return syncDir(s.packsDir())
	}()
	if err != nil {
		pack.discard()
		return err
	}
	err = s.tx(func(w *writer) error {
		key, err := w.insert("INSERT INTO packs (name, bytes) VALUES (?, ?)", pack.name, pack.off)
		if err != nil {
			return err
		}
		for _, m := range all {
			if _, err := w.exec("UPDATE blobs SET pack = ?, off = ? WHERE hash = ?", key, m.off, m.hash); err != nil {
				return err
			}
		}
		for _, p := range list {
			if _, err := w.exec("DELETE FROM packs WHERE key = ?", p.key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		// A commit whose sync failed may be there all the same, and its rows name the
		// new pack: it stays, and goes as an orphan when they do not.
		return err
	}
	s.open.drop(pack.name)
	return nil
}

// shrink gives free pages back when they are a good part of the file.
func (s *Store) shrink() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	free, err := s.w.row("PRAGMA freelist_count")
	if err != nil {
		return err
	}
	all, err := s.w.row("PRAGMA page_count")
	if err != nil {
		return err
	}
	var r scan
	if n := r.int(free[0]); r.err != nil || n < 64 || n*4 < r.int(all[0]) {
		return r.err
	}
	if err := s.w.forgetStatements(); err != nil { // VACUUM wants none open
		return err
	}
	if _, err := s.w.conn.Exec("VACUUM", nil); err != nil {
		return err
	}
	_, err = s.w.conn.Exec("PRAGMA wal_checkpoint(TRUNCATE)", nil)
	return err
}

// Verify reads everything that is stored and checks it: the database, every
// checkpoint's tree, every content by its hash, every pack's length. It returns
// what is wrong, nil for nothing.
func (s *Store) Verify(ctx context.Context) (wrong []string, err error) {
	add := func(err error) {
		if err != nil && len(wrong) < 100 {
			wrong = append(wrong, err.Error())
		}
	}
	add(s.CheckIntegrity(ctx))
	var ids []string
	err = s.each(ctx, "SELECT id FROM checkpoints ORDER BY key", nil, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return wrong, wrap("verify checkpoints", err)
	}
	for _, id := range ids {
		_, err := s.manifestFrom(ctx, id, s.storedRow)
		add(err)
	}
	known := map[checkpoint.Hash]bool{}
	var hashes []checkpoint.Hash
	err = s.each(ctx, "SELECT hash FROM blobs ORDER BY pack, off", nil, func(rows *sql.Rows) error {
		var h []byte
		err := rows.Scan(&h)
		if err == nil {
			hashes, known[checkpoint.Hash(h)] = append(hashes, checkpoint.Hash(h)), true
		}
		return err
	})
	if err != nil {
		return wrong, wrap("verify contents", err)
	}
	for _, h := range hashes {
		if err := context.Cause(ctx); err != nil {
			return wrong, err
		}
		r, err := s.Open(ctx, h)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		add(err)
	}
	live, err := s.reachable(ctx)
	add(err)
	if err == nil {
		for h := range live {
			if !known[h] {
				add(s.missing(ctx, h))
			}
		}
	}
	return wrong, nil
}

var emptyContent = checkpoint.Hash{0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
	0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55}

// missing says that a checkpoint names a content that is not stored. A hash that
// only an event holds may be no content at all.
func (s *Store) missing(ctx context.Context, h checkpoint.Hash) error {
	if h == emptyContent {
		return nil
	}
	named := false
	err := s.each(ctx, "SELECT 1 FROM events WHERE instr(body, ?) > 0 LIMIT 1", []any{`"` + h.String() + `"`}, func(*sql.Rows) error {
		named = true
		return nil
	})
	if err != nil || named {
		return err
	}
	return corrupt("look for content "+h.String(), "a checkpoint names it, and it is not stored")
}
