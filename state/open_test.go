package state

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mattn/go-sqlite3"

	"flowrun.dev/flow/engine"
)

func scanCount(to map[string]int) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var k string
		var n int
		err := rows.Scan(&k, &n)
		to[k] = n
		return err
	}
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	must(t, os.CopyFS(to, os.DirFS(from)))
	must(t, os.Chmod(to, 0o700))
}

func TestOpenMakes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b#c?d%e", DirName)
	s, err := Open(dir, Options{})
	must(t, err)
	for name, want := range map[string]fs.FileMode{".": fs.ModeDir | 0o700, "flow.db": 0o600, "flow.db-wal": 0o600,
		"locks": fs.ModeDir | 0o700, "packs": fs.ModeDir | 0o700, "runs": fs.ModeDir | 0o700, ".gitignore": 0o600} {
		fi, err := os.Stat(filepath.Join(dir, name))
		must(t, err)
		if fi.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, ".gitignore")); err != nil || string(b) != "*\n" {
		t.Errorf(".gitignore: %q, %v", b, err)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		row, err := s.w.row("PRAGMA " + pragma)
		must(t, err)
		var r scan
		got, ok := row[0].(string)
		if !ok && r.int(row[0]) == int64(want[0]-'0') {
			got = want
		}
		if got != want {
			t.Errorf("%s is %v, want %s", pragma, row[0], want)
		}
	}
	must(t, s.Close())
	if err := s.PutInbox(t.Context(), "x", engine.CancelRequested{}); err == nil {
		t.Error("a closed store takes writes")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make func(t *testing.T, dir string)
		want error
	}{
		{"symlink", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+".real", 0o700))
			must(t, os.Symlink(dir+".real", dir))
		}, ErrUnsafeDir},
		{"a file", func(t *testing.T, dir string) { must(t, os.WriteFile(dir, nil, 0o600)) }, ErrUnsafeDir},
		{"group can write", func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o700)); must(t, os.Chmod(dir, 0o770)) }, ErrUnsafeDir},
		{"all can write", func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o700)); must(t, os.Chmod(dir, 0o707)) }, ErrUnsafeDir},
		{"another user's", func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Chown(dir, 12345, 12345))
		}, ErrUnsafeDir},
		{"no database", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.WriteFile(filepath.Join(dir, dbName), []byte(strings.Repeat("this is no database ", 100)), 0o600))
		}, ErrCorrupt},
		{"a newer database", func(t *testing.T, dir string) {
			s, err := Open(dir, Options{})
			must(t, err)
			must(t, s.tx(func(w *writer) error { _, err := w.conn.Exec("PRAGMA user_version = 99", nil); return err }))
			must(t, s.Close())
		}, ErrNewer},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), DirName)
			c.make(t, dir)
			for name, open := range map[string]func(string, Options) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
				s, err := open(dir, Options{})
				if err == nil {
					s.Close()
				}
				if name == "OpenReadOnly" && errors.Is(err, fs.ErrNotExist) {
					continue // there is no database to be wrong about
				}
				if name == "OpenReadOnly" && c.name == "a file" && errors.Is(err, syscall.ENOTDIR) {
					continue
				}
				if !errors.Is(err, c.want) || Hint(err) == "" {
					t.Errorf("%s: %v, want %v with a hint", name, err, c.want)
				}
			}
		})
	}
}

func TestOpenTightens(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), DirName)
	must(t, os.Mkdir(dir, 0o755))
	s, err := Open(dir, Options{})
	must(t, err)
	defer s.Close()
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("its mode is %v, %v", fi.Mode(), err)
	}
}

// TestReadOnly: a reader works beside a writer and after kill -9 (a log that
// nobody checked in), writes nothing, and says so.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	if _, err := OpenReadOnly(filepath.Join(t.TempDir(), DirName), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without state: %v", err)
	}
	// What a kill between the file and its schema leaves.
	dir := filepath.Join(t.TempDir(), DirName)
	must(t, prepareDir(dir))
	if _, err := OpenReadOnly(dir, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a schema: %v", err)
	}
	s := open(t)
	o := create(t, s)
	r, err := OpenReadOnly(s.Dir(), Options{})
	must(t, err)
	defer r.Close()
	if run, err := r.Run(t.Context(), o.RunID()); err != nil || run.Status != engine.RunRunning {
		t.Errorf("it sees %+v, %v", run, err)
	}
	if _, err := r.Acquire(t.Context(), NewRunID()); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Acquire: %v", err)
	}
	if _, err := r.Begin(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Begin: %v", err)
	}
	if _, err := r.OpenLog("run", "build", 1); !errors.Is(err, ErrReadOnly) {
		t.Errorf("OpenLog: %v", err)
	}
	if _, err := r.read.Exec("DELETE FROM runs"); err == nil {
		t.Error("a reader's connection can write")
	}
}

// TestMigrate brings an empty database (schema 0) up, from many processes' view
// at once.
func TestMigrate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), DirName)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := Open(dir, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := Open(dir, Options{})
	must(t, err)
	defer s.Close()
	names, err := migrationNames()
	must(t, err)
	if v, err := s.w.version(); err != nil || v != len(names) || v == 0 {
		t.Errorf("the schema is %d, %v", v, err)
	}
	create(t, s)
}

func TestFind(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b")
	must(t, os.MkdirAll(deep, 0o700))
	if got, err := Find(deep); err != nil || got != filepath.Join(deep, DirName) {
		t.Errorf("without any: %s, %v", got, err)
	}
	must(t, os.Mkdir(filepath.Join(root, DirName), 0o700))
	if got, err := Find(deep); err != nil || got != filepath.Join(root, DirName) {
		t.Errorf("with one above: %s, %v", got, err)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	s := open(t)
	if _, err := s.Resolve(t.Context(), "latest"); !errors.Is(err, ErrNotFound) {
		t.Errorf("latest of none: %v", err)
	}
	for _, id := range []string{"abcaaaaaaa", "abcbbbbbbb", "abd", "abdz"} {
		o, err := s.CreateRun(t.Context(), engine.RunStarted{RunID: id}, RunExtra{})
		must(t, err)
		put(t, o, engine.RunFinished{Status: engine.RunSucceeded})
		must(t, o.Close())
	}
	for word, want := range map[string]string{"latest": "abdz", "abca": "abcaaaaaaa", "abd": "abd", "abdz": "abdz"} {
		if got, err := s.Resolve(t.Context(), word); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", word, got, err, want)
		}
	}
	var amb *AmbiguousError
	if _, err := s.Resolve(t.Context(), "abc"); !errors.As(err, &amb) || len(amb.Candidates) != 2 {
		t.Errorf("an ambiguous one: %v", err)
	}
	for _, word := range []string{"x", "", "%", "AB", "latest-failed", "a'b"} {
		if got, err := s.Resolve(t.Context(), word); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %q, %v", word, got, err)
		}
	}
	if _, err := s.CreateRun(t.Context(), engine.RunStarted{RunID: "abd"}, RunExtra{}); err == nil {
		t.Error("an id was given twice")
	}
	if _, err := s.CreateRun(t.Context(), engine.RunStarted{RunID: "a/b"}, RunExtra{}); err == nil {
		t.Error("a path was taken as id")
	}
	if a, b := NewRunID(), NewRunID(); len(a) != idLength || a == b {
		t.Error("ids are not random")
	}
}

// TestReadersBesideWriter: everything a reader sees is whole, while a run grows.
func TestReadersBesideWriter(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	const n = 150
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			r, err := OpenReadOnly(s.Dir(), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			w, err := r.Watch(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			last := int64(0)
			for {
				changed, err := w.Changed(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if changed {
					evs, err := r.Events(t.Context(), o.RunID(), last)
					if err != nil {
						t.Error(err)
						return
					}
					if len(evs) > 0 {
						last = evs[len(evs)-1].Seq
					}
				}
				select {
				case <-done:
					if evs, err := r.Events(t.Context(), o.RunID(), 0); err != nil || len(evs) != 2*n+1 {
						t.Errorf("at the end: %d events, %v", len(evs), err)
					}
					return
				default:
				}
			}
		})
	}
	for i := range n {
		put(t, o, started(stepName(i), 1), finished(stepName(i), 1, engine.StepSucceeded))
	}
	close(done)
	wg.Wait()
}

// TestCorruptPages: a damaged database is an error that says so, never a wrong answer.
func TestCorruptPages(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	for i := range 50 {
		put(t, o, started(stepName(i), 1), finished(stepName(i), 1, engine.StepSucceeded))
	}
	run := o.RunID()
	must(t, o.Close())
	to := filepath.Join(t.TempDir(), "copy")
	must(t, s.tx(func(w *writer) error { return nil }))
	_, err := s.w.row("PRAGMA wal_checkpoint(TRUNCATE)")
	must(t, err)
	copyTree(t, s.Dir(), to)
	path := filepath.Join(to, dbName)
	b, err := os.ReadFile(path)
	must(t, err)
	for i := 4096; i < len(b); i++ {
		b[i] ^= 0x5a
	}
	must(t, os.WriteFile(path, b, 0o600))
	c, err := Open(to, Options{})
	if err == nil {
		defer c.Close()
		wantIs(t, c.CheckIntegrity(t.Context()), ErrCorrupt)
		_, err = c.Events(t.Context(), run, 0)
	}
	wantIs(t, err, ErrCorrupt)
}

// TestDiskFull: nothing of an Append is stored when there is no room, the error
// says so, and with room again the owner goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	pages := func(n string) {
		t.Helper()
		_, err := s.w.row("PRAGMA max_page_count = " + n)
		must(t, err)
	}
	pages("1") // is raised to what there is
	big := finished("build", 1, engine.StepSucceeded)
	big.Outcome.Command = strings.Repeat("x", 100_000)
	put(t, o, started("build", 1))
	err := o.Append(t.Context(), events(big))
	wantIs(t, err, ErrDiskFull)
	if Hint(err) == "" {
		t.Error("no hint")
	}
	if st := steps(t, s, o.RunID())["build"]; st.Status != engine.StepRunning {
		t.Errorf("the step is %s", st.Status)
	}
	pages("1000000")
	put(t, o, big)
	must(t, s.CheckIntegrity(t.Context()))
}

// TestTmpfsFull does the same with a file system that really is full, for the
// database, packs and logs.
func TestTmpfsFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	mnt := t.TempDir()
	if err := syscall.Mount("none", mnt, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer func() { must(t, syscall.Unmount(mnt, syscall.MNT_DETACH)) }()
	s, err := Open(filepath.Join(mnt, DirName), Options{})
	must(t, err)
	defer s.Close()
	o, err := s.CreateRun(t.Context(), engine.RunStarted{RunID: NewRunID()}, RunExtra{})
	must(t, err)
	defer o.Close()
	w, err := s.OpenLog(o.RunID(), "build", 1)
	must(t, err)
	for err == nil {
		err = w.Write(Stdout, noise(100_000))
	}
	wantIs(t, err, ErrDiskFull)
	b, err := s.Begin(t.Context())
	must(t, err)
	_, _, err = b.PutReader(strings.NewReader(string(noise(4 << 20))))
	wantIs(t, err, ErrDiskFull)
	b.Abort()
	for err = nil; err == nil; {
		err = o.Append(t.Context(), events(engine.SandboxCreated{ID: strings.Repeat("x", 50_000)}))
	}
	wantIs(t, err, ErrDiskFull)
	seq := o.LastSeq()
	if _, err := w.Finish(); err == nil {
		t.Error("Finish hides that the log is not whole")
	}
	must(t, os.Remove(s.logPath(w.name)))
	put(t, o, engine.SandboxClosed{ID: "x"})
	if o.LastSeq() != seq+1 {
		t.Errorf("the owner is at event %d", o.LastSeq())
	}
	must(t, s.CheckIntegrity(t.Context()))
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want error
	}{
		{sqlite3.Error{Code: sqlite3.ErrFull}, ErrDiskFull},
		{sqlite3.Error{Code: sqlite3.ErrIoErr, SystemErrno: syscall.ENOSPC}, ErrDiskFull},
		{sqlite3.Error{Code: sqlite3.ErrIoErr}, ErrIO},
		{sqlite3.Error{Code: sqlite3.ErrCorrupt}, ErrCorrupt},
		{sqlite3.Error{Code: sqlite3.ErrBusy}, ErrLocked},
		{sqlite3.Error{Code: sqlite3.ErrReadonly}, ErrReadOnly},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, ErrDiskFull},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.EIO}, ErrIO},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, ErrReadOnly},
	} {
		err := wrap("again", wrap("do it", c.err))
		if !errors.Is(err, c.want) || Hint(err) == "" || !strings.HasPrefix(err.Error(), "again: do it: ") {
			t.Errorf("%v became %v", c.err, err)
		}
	}
	if wrap("x", nil) != nil || Hint(errors.New("x")) != "" {
		t.Error("nothing became something")
	}
}
