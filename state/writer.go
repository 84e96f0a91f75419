package state

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/mattn/go-sqlite3"
)

// connector makes connections without the registry of drivers.
type connector struct{ dsn string }

func (c *connector) Connect(context.Context) (driver.Conn, error) { return c.Driver().Open(c.dsn) }
func (c *connector) Driver() driver.Driver                        { return &sqlite3.SQLiteDriver{} }

// writer is the one connection that writes, used under Store.mu. It talks to the
// driver directly: of a transaction of ten statements, database/sql's pool,
// contexts and conversions would take as long as SQLite does.
type writer struct {
	conn  *sqlite3.SQLiteConn
	stmts map[string]*sqlite3.SQLiteStmt // prepared by their first use
}

// walPages is after how many pages of 4 KiB the write-ahead log is copied into the
// database. Its file is kept and written over, because growing it costs a journal
// commit of the file system each time (measured on ext4: 0.44 against 0.15 ms);
// what an earlier process left in it is copied again by the next close, so it is
// kept short. Measured over whole runs of 1, 10, 100 and 1,000 steps, 200 pages
// with the file kept were best in each (2.0, 3.8, 22, 236 ms), 1,000 and 100 pages
// and a removed file worse.
const walPages = 200

func (s *Store) openWriter() error {
	c, err := (&sqlite3.SQLiteDriver{}).Open(dsn(s.dbPath(), "rw", s.opts.BusyTimeout))
	if err != nil {
		return wrap("open database "+s.dbPath(), err)
	}
	w := &writer{conn: c.(*sqlite3.SQLiteConn), stmts: map[string]*sqlite3.SQLiteStmt{}}
	if err := w.prepare(); err != nil {
		return errors.Join(wrap("open database "+s.dbPath(), err), w.close())
	}
	s.w = w
	return nil
}

func (w *writer) prepare() error {
	if err := w.conn.SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1); err != nil {
		return fmt.Errorf("keep the log's file: %w", err)
	}
	for _, p := range []string{"PRAGMA journal_mode = WAL", fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", walPages)} {
		if _, err := w.conn.Exec(p, nil); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return w.migrate()
}

func (w *writer) close() error {
	var errs []error
	for _, st := range w.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// forgetStatements closes what is prepared; it is prepared again when it is used.
func (w *writer) forgetStatements() error {
	var errs []error
	for _, st := range w.stmts {
		errs = append(errs, st.Close())
	}
	clear(w.stmts)
	return errors.Join(errs...)
}

func (w *writer) stmt(query string) (*sqlite3.SQLiteStmt, error) {
	if st := w.stmts[query]; st != nil {
		return st, nil
	}
	st, err := w.conn.Prepare(query)
	if err != nil {
		return nil, err
	}
	w.stmts[query] = st.(*sqlite3.SQLiteStmt)
	return w.stmts[query], nil
}

// exec runs a statement and returns the number of rows that it changed.
func (w *writer) exec(query string, args ...driver.Value) (int64, error) {
	st, err := w.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := st.Exec(args)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// insert runs a statement and returns the last row's key.
func (w *writer) insert(query string, args ...driver.Value) (int64, error) {
	st, err := w.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := st.Exec(args)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// row reads the first row of a query, nil when there is none.
func (w *writer) row(query string, args ...driver.Value) (_ []driver.Value, err error) {
	st, err := w.stmt(query)
	if err != nil {
		return nil, err
	}
	rows, err := st.Query(args)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	out := make([]driver.Value, len(rows.Columns()))
	switch err := rows.Next(out); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return out, nil
}

// tx runs f in one transaction that is durable when it returns nil, and as if it
// had never been otherwise. It is not cancelled in the middle: it is short, and
// whether half of it is stored must not be a question.
func (s *Store) tx(f func(w *writer) error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return &storageError{op: "write state", kind: ErrReadOnly, cause: errors.New("it was opened for reading only, or is closed")}
	}
	if _, err := s.w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	done := false
	defer func() { // f may panic, too
		if !done && !s.w.conn.AutoCommit() {
			if _, rerr := s.w.exec("ROLLBACK"); rerr != nil {
				err = errors.Join(err, fmt.Errorf("roll back: %w", rerr))
			}
		}
	}()
	if err := f(s.w); err != nil {
		return err
	}
	if _, err := s.w.exec("COMMIT"); err != nil {
		return err
	}
	done = true
	return nil
}

// each calls f for every row; f must keep nothing of the slice.
func (w *writer) each(query string, f func([]driver.Value) error, args ...driver.Value) (err error) {
	st, err := w.stmt(query)
	if err != nil {
		return err
	}
	rows, err := st.Query(args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := f(row); err != nil {
			return err
		}
	}
}
