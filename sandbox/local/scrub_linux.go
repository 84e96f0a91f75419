package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/internal/scratch"
)

var _ sandbox.Scrubber = (*Sandbox)(nil)

// scrubTimeout bounds Scrub: a new sandbox is made in a hundredth of it.
const scrubTimeout = 30 * time.Second

// scrubOnce is what does it nearly always.
var scrubOnce = [...]string{"-mindepth", "1", "-xdev", "-delete"}

// scrubScript is for what that could not remove: a folder that its owner may not enter
// is opened first (-exec runs before find descends). Commands of an ordinary user own
// the scratch folders themselves, and everybody's /run: their modes are as rootfs made them.
const scrubScript = `for dir; do
	case $dir in /run) mode=755;; *) mode=1777;; esac
	chmod $mode "$dir" 2>/dev/null
	find "$dir" -mindepth 1 -xdev -type d -exec chmod u+rwx {} \; 2>/dev/null
	find "$dir" -mindepth 1 -xdev -delete
done`

// Scrub removes what commands left, and then asks init whether the sandbox is as it
// was made: what the removal cannot reach (objects of System V IPC, the mode of a
// folder) is seen there.
func (s *Sandbox) Scrub(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, scrubTimeout, fmt.Errorf("emptying the scratch folders took longer than %v", scrubTimeout))
	defer cancel()
	if s.flat() {
		if err := scratch.Empty(s.tmp); err != nil {
			return scrubError(err)
		}
		return nil
	}
	clean, err := s.Clean(ctx)
	if err != nil || clean {
		return err
	}
	dirs := append(keptDirs[:], queues)
	if s.runScrub(ctx, append(append([]string{"find"}, dirs...), scrubOnce[:]...)) == nil {
		if clean, err = s.Clean(ctx); err != nil || clean {
			return err
		}
	}
	if err := s.runScrub(ctx, append([]string{"/bin/sh", "-c", scrubScript, "scrub"}, dirs...)); err != nil {
		return err
	}
	if clean, err = s.Clean(ctx); err == nil && !clean {
		err = scrubError(errors.New("commands left something that cannot be removed"))
	}
	return err
}

func (s *Sandbox) runScrub(ctx context.Context, argv []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return scrubError(err)
	}
	defer r.Close()
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(r, 1<<10))
		_, _ = io.Copy(io.Discard, r)
		said <- string(text)
	}()
	res, err := s.Exec(ctx, sandbox.Cmd{Argv: argv, Env: s.BaseEnv(), Dir: "/", Stderr: w})
	w.Close()
	text := strings.TrimSpace(<-said)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return scrubError(context.Cause(ctx))
	case res.ExitCode != 0:
		return scrubError(fmt.Errorf("exit code %d: %s", res.ExitCode, text))
	}
	return nil
}

func scrubError(err error) error {
	return &sandbox.Error{Op: "reset the sandbox", Class: sandbox.ClassInfrastructure, Err: err}
}
