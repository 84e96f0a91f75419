package checkpoint

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// TestRestoredProgramRuns: a program can be run as soon as it is restored, while
// others fork. (Without the lock of forks the first "text file busy" comes within ten rounds.)
func TestRestoredProgramRuns(t *testing.T) {
	// Not parallel: what these forks hold for a moment are also the locks of other tests.
	root, st := tempRoot(t), &MemStore{}
	program := filepath.Join(root, "program")
	must(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	tr := NewTracker(root, Options{})
	s := snap(t, tr, st)
	ctx, cancel := context.WithCancel(context.Background())
	var forks sync.WaitGroup
	for range 4 {
		forks.Go(func() {
			for ctx.Err() == nil {
				_ = exec.CommandContext(ctx, "/bin/true").Run()
			}
		})
	}
	defer forks.Wait()
	defer cancel()
	for i := range 200 {
		must(t, os.Remove(program))
		must(t, tr.Restore(context.Background(), st, s.Manifest))
		if out, err := exec.Command(program).CombinedOutput(); err != nil {
			t.Fatalf("round %d: %v %s", i, err, out)
		}
	}
}
