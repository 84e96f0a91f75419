package state

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mattn/go-sqlite3"

	"flowrun.dev/flow/engine"
)

// A run in one file is a SQLite database of this schema with that run alone, and
// every content and log in its rows. It holds the workspace as it was, unredacted.

// notCarried are tables whose rows are about this directory, not about the run.
var notCarried = []string{"inbox", "packs", "blobs", "logs"}

// ExportRun writes a run with all that a resume needs into a new file (0600). It
// appears whole or not at all. A running run is refused (*BusyError).
func (s *Store) ExportRun(ctx context.Context, id, file string) (err error) {
	name := "export run " + id
	info, key, err := s.runRow(ctx, id)
	if err != nil {
		return wrap(name, err)
	}
	if h, alive, err := s.Holder(id); err != nil {
		return wrap(name, err)
	} else if alive {
		return &BusyError{Run: id, Holder: h}
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s: %s is there already", name, file)
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".flow-export-*")
	if err != nil {
		return wrap(name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	part := filepath.Join(dir, "run.db")
	if err := s.writeExport(ctx, info.ID, key, part); err != nil {
		return wrap(name, err)
	}
	f, err := os.OpenFile(part, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(f.Chmod(0o600), f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(part, file)
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	return wrap(name, err)
}

func (s *Store) writeExport(ctx context.Context, id string, key int64, part string) (err error) {
	w, err := openPortable(part, "rwc")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.migrate(); err != nil {
		return err
	}
	if _, err := w.exec("ATTACH DATABASE ? AS src", dsn(s.dbPath(), "ro", s.opts.BusyTimeout)); err != nil {
		return err
	}
	if _, err := w.exec("BEGIN"); err != nil {
		return err
	}
	if err := copyRun(w, "src", key, driver.Value(key)); err != nil {
		return err
	}
	if err := s.exportContents(ctx, w, key); err != nil {
		return err
	}
	if err := s.exportLogs(ctx, w, id, key); err != nil {
		return err
	}
	for _, q := range []string{"COMMIT", "DETACH DATABASE src"} {
		if err := w.forgetStatements(); err != nil {
			return err
		}
		if _, err := w.conn.Exec(q, nil); err != nil {
			return err
		}
	}
	return nil
}

func openPortable(path, mode string) (*writer, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open(strings.Replace(dsn(path, mode, 0), "_synchronous=FULL", "_synchronous=OFF", 1))
	if err != nil {
		return nil, err
	}
	return &writer{conn: c.(*sqlite3.SQLiteConn), stmts: map[string]*sqlite3.SQLiteStmt{}}, nil
}

// copyRun copies the rows of one run from an attached database, table by table:
// runs first, for the others refer to it. Keys that hold the run's are made anew;
// newKey nil means that the database gives one. It returns with the rows in main.
func copyRun(w *writer, from string, oldKey int64, newKey driver.Value) error {
	if err := copyRows(w, from, "runs", "key = ?1", oldKey, newKey, nil); err != nil {
		return err
	}
	row, err := w.row("SELECT key FROM main.runs WHERE id = (SELECT id FROM "+from+".runs WHERE key = ?)", oldKey)
	if err != nil || row == nil {
		return errors.Join(err, errors.New("the run's row was not copied"))
	}
	var names []string
	err = w.each("SELECT DISTINCT m.name FROM main.sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'run' ORDER BY m.name", func(r []driver.Value) error {
		var sc scan
		names = append(names, sc.text(r[0]))
		return sc.err
	})
	if err != nil {
		return err
	}
	for _, t := range names {
		if slices.Contains(notCarried, t) {
			continue
		}
		if err := copyRows(w, from, t, "run = ?1", oldKey, newKey, row[0]); err != nil {
			return fmt.Errorf("copy %s: %w", t, err)
		}
	}
	return nil
}

// copyRows copies rows with the columns that this schema has. run is the key of the
// run's new row.
func copyRows(w *writer, from, table, where string, oldKey int64, newKey, run driver.Value) error {
	var cols, vals []string
	err := w.each("SELECT name FROM pragma_table_info('"+table+"')", func(r []driver.Value) error {
		var sc scan
		col := sc.text(r[0])
		val := `"` + col + `"`
		switch {
		case table == "runs" && col == "key":
			val = "?2"
		case table == "runs" && col == "fence":
			val = "fence + 1"
		case col == "run":
			val = "?3"
		case table == "events" && col == "id":
			val = "(?3 << 32) | seq"
		case table == "checkpoints" && col == "key":
			val = "(?3 << 32) | n"
		case table == "checkpoints" && col == "base":
			val = "CASE WHEN base IS NULL THEN NULL ELSE (?3 << 32) | (base & 4294967295) END"
		case col == "key":
			val = "NULL"
		}
		cols, vals = append(cols, `"`+col+`"`), append(vals, val)
		return sc.err
	})
	if err != nil {
		return err
	}
	// ?2 and ?3 are named in each form, so that the number of arguments is the same.
	_, err = w.exec("INSERT INTO main."+table+" ("+strings.Join(cols, ", ")+") SELECT "+strings.Join(vals, ", ")+
		" FROM "+from+"."+table+" WHERE "+where+" AND (?2 IS NULL OR 1) AND (?3 IS NULL OR 1)", oldKey, newKey, run)
	return err
}

// exportContents puts what the run's checkpoints and events name into rows.
func (s *Store) exportContents(ctx context.Context, w *writer, key int64) error {
	want, err := s.reachableFrom(ctx, "WHERE run = ?", key)
	if err != nil {
		return err
	}
	for h := range want {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		row, err := w.row("SELECT b.codec, b.size, b.data, p.name, b.off, b.length FROM src.blobs b LEFT JOIN src.packs p ON p.key = b.pack WHERE b.hash = ?", h[:])
		if err != nil {
			return err
		}
		if row == nil {
			continue // an event's hash that is no content, or the empty one
		}
		data := row[2]
		if data == nil {
			var sc scan
			name, off, length := sc.text(row[3]), sc.int(row[4]), sc.int(row[5])
			if sc.err != nil {
				return sc.err
			}
			b := make([]byte, length)
			if err := readAt(filepath.Join(s.packsDir(), name), b, off); err != nil {
				return fmt.Errorf("content %s: %w", h, err)
			}
			data = b
		}
		if _, err := w.exec("INSERT INTO main.blobs (hash, codec, size, data) VALUES (?, ?, ?, ?)", h[:], row[0], row[1], data); err != nil {
			return fmt.Errorf("content %s: %w", h, err)
		}
	}
	return nil
}

func readAt(path string, b []byte, off int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(b, off)
	return err
}

// exportLogs puts long logs, which lie in files, into rows.
func (s *Store) exportLogs(ctx context.Context, w *writer, id string, key int64) error {
	type log struct {
		step    string
		attempt int64
		bytes   driver.Value
		data    driver.Value
	}
	var all []log
	err := w.each(fmt.Sprintf("SELECT step, attempt, bytes, data FROM src.logs WHERE run = %d", key), func(r []driver.Value) error {
		var sc scan
		l := log{step: sc.text(r[0]), attempt: sc.int(r[1]), bytes: r[2]}
		if b, ok := r[3].([]byte); ok {
			l.data = slices.Clone(b)
		}
		all = append(all, l)
		return sc.err
	})
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.data == nil {
			b, err := os.ReadFile(s.logPath(logName{run: id, step: l.step, attempt: int(l.attempt)}))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			l.data = b
		}
		if _, err := w.exec("INSERT INTO main.logs (run, step, attempt, bytes, data) VALUES (?, ?, ?, ?, ?)", key, l.step, l.attempt, l.bytes, l.data); err != nil {
			return err
		}
	}
	return nil
}

// ImportRun brings the run of an exported file in and returns its id. The file is
// somebody else's word: it is checked before a row of it is taken, and its contents
// are checked by their hash whenever they are read.
func (s *Store) ImportRun(ctx context.Context, file string) (id string, err error) {
	name := "import " + file
	if id, err = checkPortable(ctx, file); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if _, _, err := s.runRow(ctx, id); err == nil {
		return "", fmt.Errorf("%s: run %s is here already", name, id)
	} else if !errors.Is(err, ErrNotFound) {
		return "", wrap(name, err)
	}
	lock, err := s.lock(id)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	s.mu.Lock()
	_, err = s.w.exec("ATTACH DATABASE ? AS imp", dsn(file, "ro", 0)+"&immutable=1")
	s.mu.Unlock()
	if err != nil {
		return "", wrap(name, err)
	}
	err = s.tx(func(w *writer) error {
		row, err := w.row("SELECT key FROM imp.runs")
		if err != nil {
			return err
		}
		var sc scan
		old := sc.int(row[0])
		if sc.err != nil {
			return sc.err
		}
		if err := copyRun(w, "imp", old, nil); err != nil {
			return err
		}
		if _, err := w.exec("INSERT INTO main.logs (run, step, attempt, bytes, data) SELECT (SELECT key FROM main.runs WHERE id = ?), step, attempt, bytes, data FROM imp.logs WHERE data IS NOT NULL", id); err != nil {
			return err
		}
		_, err = w.exec("INSERT OR IGNORE INTO main.blobs (hash, codec, size, data) SELECT hash, codec, size, data FROM imp.blobs WHERE data IS NOT NULL")
		return err
	})
	s.mu.Lock()
	derr := s.w.forgetStatements()
	if derr == nil {
		_, derr = s.w.conn.Exec("DETACH DATABASE imp", nil)
	}
	s.mu.Unlock()
	return id, wrap(name, errors.Join(err, derr))
}

// checkPortable says whether a file is an exported run of this schema, and whose.
func checkPortable(ctx context.Context, file string) (id string, err error) {
	head := make([]byte, 16)
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	_, err = io.ReadFull(f, head)
	f.Close()
	if err != nil || string(head) != "SQLite format 3\x00" {
		return "", errors.New("it is no exported run")
	}
	w, err := openPortable(file, "ro")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if _, err := w.conn.Exec("PRAGMA trusted_schema = OFF", nil); err != nil {
		return "", err
	}
	names, err := migrationNames()
	if err != nil {
		return "", err
	}
	have, err := w.version()
	if err != nil {
		return "", err
	}
	if have != len(names) {
		return "", fmt.Errorf("it has schema %d, this program needs %d: export it again with the same version of flow", have, len(names))
	}
	// A view or a trigger in the place of a table would be carried out by reading it.
	row, err := w.row("SELECT count(*) FROM sqlite_master WHERE type NOT IN ('table', 'index')")
	if err != nil || row[0] != int64(0) {
		return "", errors.Join(err, errors.New("it holds more than tables"))
	}
	if row, err = w.row("PRAGMA quick_check(1)"); err != nil || fmt.Sprint(row[0]) != "ok" {
		return "", errors.Join(err, errors.New("it is damaged"))
	}
	if row, err = w.row("SELECT count(*), min(id) FROM runs"); err != nil || row[0] != int64(1) {
		return "", errors.Join(err, errors.New("it does not hold exactly one run"))
	}
	var sc scan
	if id = sc.text(row[1]); sc.err != nil {
		return "", sc.err
	}
	if err := validRunID(id); err != nil {
		return "", err
	}
	return id, checkEvents(ctx, w, id)
}

func checkEvents(ctx context.Context, w *writer, id string) error {
	n := int64(0)
	return w.each("SELECT seq, type, body FROM events ORDER BY seq", func(r []driver.Value) error {
		var sc scan
		n++
		b, err := engine.Decode(sc.text(r[1]), []byte(sc.text(r[2])))
		switch {
		case sc.err != nil:
			return sc.err
		case err != nil:
			return fmt.Errorf("event %d: %w", n, err)
		case sc.int(r[0]) != n:
			return fmt.Errorf("event %d is missing", n)
		}
		if st, ok := b.(engine.RunStarted); n == 1 && (!ok || st.RunID != id) {
			return errors.New("its first event is not the start of its run")
		}
		return context.Cause(ctx)
	})
}
