package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// DirName is the state directory's usual name, beside the workflow files.
const DirName = ".flow"

// Find looks for DirName in start and the directories above it. When there is
// none, the answer is DirName in start itself, which Open creates. FLOW_STATE and
// --state come before it: that is the caller's.
func Find(start string) (string, error) {
	start, err := filepath.Abs(start)
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		candidate := filepath.Join(dir, DirName)
		switch _, err := os.Lstat(candidate); {
		case err == nil:
			return candidate, nil
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
			return "", fmt.Errorf("find the state directory: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return filepath.Join(start, DirName), nil
		}
	}
}
