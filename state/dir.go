package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	dbName    = "flow.db"
	locksName = "locks"
	packsName = "packs"
	runsName  = "runs"
)

// prepareDir makes the state directory and what is always in it, and refuses one
// that somebody else could have put there: its content decides what commands a
// resume runs.
func prepareDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return wrap("create state directory", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return wrap("create state directory", err)
	}
	if err := checkDir(dir, true); err != nil {
		return err
	}
	// Each time, because a loss of power may have kept the database but not these.
	for _, name := range []string{locksName, packsName, runsName} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return wrap("create state directory", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, dbName)); err == nil {
		return nil
	}
	// Nobody wants state in a commit; git reads this file, so the user's own
	// .gitignore need not be touched.
	ignore := filepath.Join(dir, ".gitignore")
	if err := os.WriteFile(ignore, []byte("*\n"), 0o600); err != nil {
		return wrap("create state directory", err)
	}
	// SQLite would create it 0644; journal and index files take its mode.
	f, err := os.OpenFile(filepath.Join(dir, dbName), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return wrap("create database", err)
	}
	// SQLite syncs what is in the directory, not the directory's own name.
	return wrap("create database", errors.Join(f.Close(), syncDir(filepath.Dir(dir))))
}

// checkDir refuses a symlink, another user's directory and one that others can
// write. With repair, rights to read are taken from others.
func checkDir(dir string, repair bool) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("open state directory %s: %w: it is a symbolic link or no directory", dir, ErrUnsafeDir)
	}
	if err != nil {
		return wrap("open state directory", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("open state directory %s: %w", dir, err)
	}
	if euid := os.Geteuid(); st.Uid != uint32(euid) {
		return fmt.Errorf("open state directory %s: %w: it belongs to user %d, this is user %d", dir, ErrUnsafeDir, st.Uid, euid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("open state directory %s: %w: its mode %#o lets others write", dir, ErrUnsafeDir, st.Mode&0o777)
	}
	if repair && st.Mode&0o077 != 0 {
		if err := f.Chmod(0o700); err != nil {
			return fmt.Errorf("open state directory %s: %w", dir, err)
		}
	}
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
