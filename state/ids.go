package state

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"
)

// idLength of a run: 50 bits, so that among 10,000 runs of one directory two are
// alike with a chance of 1 in 20 million; the database refuses the second.
const idLength = 10

func randomID(n int) string {
	b := make([]byte, (n*5+7)/8)
	rand.Read(b) // never fails (Go 1.24)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:n]
}

// NewRunID makes the id of a new run: 10 characters a–z, 2–7; a prefix of it that
// is unique names the run too (Resolve).
func NewRunID() string { return randomID(idLength) }

// validRunID keeps what becomes a file's name a name.
func validRunID(id string) error {
	if id == "" || len(id) > 64 {
		return fmt.Errorf("run id %q: %w: it must have 1 to 64 characters", id, ErrNotFound)
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("run id %q: %w: an id has lower-case letters and digits only", id, ErrNotFound)
		}
	}
	return nil
}

// A checkpoint's id is <run>.<n>.<nonce>: n finds the row, the nonce tells two
// apart that had the same n because a process died before it stored the first.
func checkpointID(run string, n int64) string {
	return run + "." + strconv.FormatInt(n, 10) + "." + randomID(8)
}

func parseCheckpointID(id string) (run string, n int64, err error) {
	run, rest, ok := strings.Cut(id, ".")
	num, nonce, ok2 := strings.Cut(rest, ".")
	n, nerr := strconv.ParseInt(num, 10, 32)
	if !ok || !ok2 || nonce == "" || nerr != nil || n < 1 || validRunID(run) != nil {
		return "", 0, fmt.Errorf("checkpoint %q: %w: an id looks like RUN.NUMBER.NONCE", id, ErrNotFound)
	}
	return run, n, nil
}

// rowKey puts a run's key and a number within it into one.
func rowKey(run, n int64) int64 { return run<<32 | n }
