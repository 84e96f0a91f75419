package state

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"
)

// What can be wrong with the place where state is kept. Each is in the chain of
// the errors that it causes; Hint says what to do.
var (
	ErrDiskFull = errors.New("the disk is full")
	ErrIO       = errors.New("the disk reports an error")
	ErrCorrupt  = errors.New("the stored state is damaged")
	ErrLocked   = errors.New("the database is locked by another process")
	ErrReadOnly = errors.New("the state directory cannot be written")
	// ErrNotFound: there is no such run, checkpoint or log.
	ErrNotFound = errors.New("not found")
	// ErrNewer: a later version of flow wrote the database.
	ErrNewer = errors.New("the state was written by a newer version of flow")
	// ErrUnsafeDir: the state directory is not one that only this user can write.
	ErrUnsafeDir = errors.New("the state directory is not safe to use")
)

// Hint says what to do about err, "" when there is nothing to say beyond it.
func Hint(err error) string {
	switch {
	case errors.Is(err, ErrDiskFull):
		return "free some space (old runs take most of it), then run `flow resume`: everything up to the last finished step is stored"
	case errors.Is(err, ErrIO):
		return "look at the kernel's log (dmesg) and the file system; state on a network file system is not supported"
	case errors.Is(err, ErrCorrupt):
		return "keep a copy of the state directory; `sqlite3 flow.db .recover` saves what can be read; another directory (--state) starts afresh"
	case errors.Is(err, ErrLocked):
		return "another program keeps the database locked (a backup, an open sqlite3 shell?): end it and try again"
	case errors.Is(err, ErrReadOnly):
		return "make the state directory writable for this user, or choose another one with --state or FLOW_STATE"
	case errors.Is(err, ErrNewer):
		return "use the newer flow, or another state directory (--state)"
	case errors.Is(err, ErrUnsafeDir):
		return "choose another directory with --state or FLOW_STATE, or repair owner and mode (chmod 700)"
	}
	return ""
}

// storageError is an operation that failed because of the place, not the caller.
type storageError struct {
	op    string
	kind  error // one of the Err… above
	cause error
}

func (e *storageError) Error() string {
	return fmt.Sprintf("%s: %v: %v", e.op, e.kind, e.cause)
}
func (e *storageError) Unwrap() []error { return []error{e.kind, e.cause} }

// wrap names the operation and makes the cause recognisable. Nil stays nil.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var se *storageError
	if errors.As(err, &se) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if kind := classify(err); kind != nil {
		return &storageError{op: op, kind: kind, cause: err}
	}
	return fmt.Errorf("%s: %w", op, err)
}

func classify(err error) error {
	var sq sqlite3.Error
	if errors.As(err, &sq) {
		return classifySQLite(sq)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return ErrDiskFull
	case errors.Is(err, syscall.EIO):
		return ErrIO
	case errors.Is(err, syscall.EROFS), errors.Is(err, os.ErrPermission):
		return ErrReadOnly
	}
	return nil
}

func classifySQLite(e sqlite3.Error) error {
	// A write that fails with ENOSPC in the middle of a page is reported as
	// SQLITE_IOERR with the system's error beside it.
	if e.SystemErrno == syscall.ENOSPC || e.SystemErrno == syscall.EDQUOT || e.SystemErrno == syscall.EFBIG {
		return ErrDiskFull
	}
	switch e.Code {
	case sqlite3.ErrFull:
		return ErrDiskFull
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return ErrCorrupt
	case sqlite3.ErrIoErr:
		return ErrIO
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return ErrLocked
	case sqlite3.ErrReadonly, sqlite3.ErrPerm:
		return ErrReadOnly
	case sqlite3.ErrCantOpen:
		if e.SystemErrno == syscall.EACCES || e.SystemErrno == syscall.EROFS {
			return ErrReadOnly
		}
	}
	return nil
}

func corrupt(op, format string, args ...any) error {
	return &storageError{op: op, kind: ErrCorrupt, cause: fmt.Errorf(format, args...)}
}

// BusyError: somebody else owns the run.
type BusyError struct {
	Run    string
	Holder Holder
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("run %s is already running: %s has it", e.Run, e.Holder)
}

// AmbiguousError: a prefix names several runs.
type AmbiguousError struct {
	Prefix     string
	Candidates []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("find run %q: %d runs begin with it: %s", e.Prefix, len(e.Candidates), strings.Join(e.Candidates, ", "))
}

// TransitionError: an event does not fit the state that is stored.
type TransitionError struct {
	Run   string
	Seq   int64
	Event string
	Step  string
	Found string // what is stored
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("append event %d of run %s: %s of step %q does not fit: it is %s", e.Seq, e.Run, e.Event, e.Step, e.Found)
}
