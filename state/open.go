package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
)

// Options of Open. The zero value is what the program uses.
type Options struct {
	// BusyTimeout is how long a transaction waits for another process's, 10 s
	// when 0.
	BusyTimeout time.Duration
	// Command is shown to whoever finds a run busy, the program's arguments when "".
	Command string
	// Now is the clock, time.Now when nil.
	Now func() time.Time
}

// Store is an open state directory. Safe for concurrent use by goroutines, and by
// any number of processes on one machine.
type Store struct {
	dir      string
	opts     Options
	readOnly bool

	read *sql.DB // queries; opened by the first one

	mu   sync.Mutex // guards w and puts; held for the length of a transaction
	w    *writer    // nil in a read-only store
	puts int64      // PutInbox calls of this process

	use  *os.File // holds a shared lock while the state is open for writing
	open names    // packs of this process that no row names yet

	blobs  staging                      // contents sealed, waiting for an Append
	codec  codec                        // zstd, made by its first use
	lmu    sync.Mutex                   // guards the maps below
	staged map[string]*stagedCheckpoint // id → row waiting for the Append that names it
	logs   map[string]*stagedLog        // ref → log waiting for it
	trees  map[string]*tree             // run → its newest checkpoint's tree
}

var (
	_ checkpoint.Store = (*Store)(nil)
	_ engine.Journal   = (*Owner)(nil)
)

// Open opens the state directory for reading and writing, creates it when there
// is none (mode 0700), and brings its database to this version's schema. Errors
// are recognisable: ErrUnsafeDir, ErrNewer, ErrCorrupt, ErrDiskFull, ErrReadOnly.
func Open(dir string, opts Options) (*Store, error) {
	s, err := newStore(dir, opts)
	if err != nil {
		return nil, err
	}
	if err := prepareDir(s.dir); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.openWriter(); err != nil {
		return nil, err
	}
	if err := s.announce(); err != nil {
		return nil, errors.Join(err, s.w.close())
	}
	s.read = openReader(s.dbPath(), s.opts.BusyTimeout)
	return s, nil
}

// announce takes a shared lock for as long as the store is open, which keeps
// RemoveOrphans of other processes from taking packs that are being written.
func (s *Store) announce() error {
	f, err := os.OpenFile(filepath.Join(s.dir, locksName, "writers"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return wrap("open state "+s.dir, err)
	}
	for {
		// Somebody who removes orphans holds it for as long as that takes.
		err := setLockWait(f, unix.F_RDLCK)
		if err == nil {
			s.use = f
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return errors.Join(wrap("open state "+s.dir, err), f.Close())
		}
	}
}

// OpenReadOnly opens an existing state directory for those who only look: it
// creates and changes nothing and takes no lock of a run. An error satisfies
// errors.Is(err, fs.ErrNotExist) when there is no state yet.
func OpenReadOnly(dir string, opts Options) (*Store, error) {
	s, err := newStore(dir, opts)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(s.dbPath()); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open state %s: there are no runs here yet: %w", s.dir, fs.ErrNotExist)
	}
	if err := checkDir(s.dir, false); err != nil {
		return nil, err
	}
	s.readOnly = true
	s.read = openReader(s.dbPath(), s.opts.BusyTimeout)
	have, err := s.schemaVersion()
	if err == nil {
		err = checkVersion(have, true)
	}
	if err != nil {
		return nil, errors.Join(wrap("open state "+s.dir, err), s.read.Close())
	}
	return s, nil
}

func newStore(dir string, opts Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if opts.BusyTimeout == 0 {
		opts.BusyTimeout = 10 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Store{
		dir: dir, opts: opts,
		staged: map[string]*stagedCheckpoint{},
		logs:   map[string]*stagedLog{},
		trees:  map[string]*tree{},
	}, nil
}

// Dir is the state directory, absolute.
func (s *Store) Dir() string { return s.dir }

// RunDir is the run's own directory (0700); it may not exist yet.
func (s *Store) RunDir(run string) string { return filepath.Join(s.dir, runsName, run) }

func (s *Store) dbPath() string { return filepath.Join(s.dir, dbName) }

// Close closes the database. Owners must be closed before.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.read.Close()
	if s.w != nil {
		err = errors.Join(err, s.w.close())
		s.w = nil
	}
	if s.use != nil {
		err = errors.Join(err, s.use.Close())
		s.use = nil
	}
	s.codec.close()
	return wrap("close state", err)
}

func (s *Store) schemaVersion() (int, error) {
	var v int
	err := s.read.QueryRowContext(context.Background(), "PRAGMA user_version").Scan(&v)
	return v, err
}

// dsn is the database's address for the driver. Only what the connection needs
// before its first statement is in it.
func dsn(path, mode string, busy time.Duration) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	q := url.Values{}
	q.Set("mode", mode)
	q.Set("_busy_timeout", fmt.Sprint(busy.Milliseconds()))
	q.Set("_foreign_keys", "1")
	q.Set("_synchronous", "FULL")
	u.RawQuery = q.Encode()
	return u.String()
}

func openReader(path string, busy time.Duration) *sql.DB {
	db := sql.OpenDB(&connector{dsn: dsn(path, "ro", busy)})
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(2)
	return db
}
