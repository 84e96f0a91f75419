package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is the right of one run to be the only one of its concurrency group. It lives
// as long as the process, or until Close.
type Group struct {
	file *os.File
	path string
}

// GroupHolder is who has a group: for people, and for who wants it.
type GroupHolder struct {
	Run   string    // "" in the moment in which it was taken
	Asked time.Time // when that run wanted the group
	Holder
}

// TryGroup takes a group for a run, or says who has it; the kernel frees it when the
// holder's process is gone, whatever ended it. Nil and no error: it is busy.
func (s *Store) TryGroup(group, run string, asked time.Time) (*Group, GroupHolder, error) {
	sum := sha256.Sum256([]byte(group))
	path := filepath.Join(s.dir, locksName, "group-"+hex.EncodeToString(sum[:16])+".lock")
	fail := func(f *os.File, err error) (*Group, GroupHolder, error) {
		return nil, GroupHolder{}, errors.Join(wrap("lock group "+strconv.Quote(group), err), f.Close())
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, GroupHolder{}, wrap("lock group "+strconv.Quote(group), err)
		}
		same, err := lockFile(f, path)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			b, err := io.ReadAll(io.LimitReader(f, 4096))
			if err != nil {
				b = nil // that it is busy is sure
			}
			return nil, decodeGroup(b), f.Close()
		}
		if err != nil {
			return fail(f, err)
		}
		if !same { // the one before removed it between open and lock
			if err := f.Close(); err != nil {
				return nil, GroupHolder{}, wrap("lock group "+strconv.Quote(group), err)
			}
			continue
		}
		text := append(s.self().encode(), fmt.Sprintf("run %s\nasked %d\n", run, asked.UnixNano())...)
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(text, 0)
		}
		if err != nil {
			return fail(f, err)
		}
		return &Group{file: f, path: path}, GroupHolder{}, nil
	}
}

func decodeGroup(b []byte) GroupHolder {
	h := GroupHolder{Holder: decodeHolder(b)}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "run":
			if validRunID(value) == nil {
				h.Run = value
			}
		case "asked":
			if ns, err := strconv.ParseInt(value, 10, 64); err == nil {
				h.Asked = time.Unix(0, ns)
			}
		}
	}
	return h
}

// Close gives the group up. Harmless when called again, and on nil.
func (g *Group) Close() error {
	if g == nil || g.file == nil {
		return nil
	}
	// While it is still locked: who opened it before finds that it is no more.
	err := errors.Join(os.Remove(g.path), g.file.Close())
	g.file = nil
	return wrap("release a concurrency group", err)
}
