package report

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// sinkRoom is how much may wait for a slow reader before Output waits too.
	sinkRoom = 1 << 20
	// hurryRoom is how long Output still waits after the run was asked to stop;
	// hurryClose how long Close then waits for a reader that takes nothing.
	hurryRoom  = time.Second
	hurryClose = 2 * time.Second
)

// errStuck is Close's answer when the reader took nothing at the end of a run
// that was asked to stop.
var errStuck = errors.New("the reader takes no data")

// sink writes what is appended to buf, from a goroutine of its own. buf is
// guarded by mu, which the reporters take for their own state as well: one lock,
// held for formatting only, never for writing.
type sink struct {
	mu   sync.Mutex
	buf  []byte
	room sync.Cond // buf got shorter, or nobody needs to wait any longer
	work sync.Cond // buf is not empty, or closed

	w        io.Writer
	err      error // the first one; from then on everything is thrown away
	closed   bool
	hurry    bool // the run was asked to stop
	drop     bool // hurryRoom is over: Output does not wait
	lost     int64
	progress int64 // writes that returned
	timer    *time.Timer
	done     chan struct{}
}

func newSink(w io.Writer) *sink {
	s := &sink{w: w, done: make(chan struct{})}
	s.room.L, s.work.L = &s.mu, &s.mu
	go s.loop()
	return s
}

// loop is the writing goroutine; it ends once close was called and all is written.
func (s *sink) loop() {
	defer close(s.done)
	var spare []byte
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.buf) == 0 && !s.closed {
			s.work.Wait()
		}
		if len(s.buf) == 0 {
			return
		}
		out := s.buf
		s.buf = spare[:0]
		failed := s.err != nil
		s.room.Broadcast()
		if !failed {
			s.mu.Unlock()
			_, err := s.w.Write(out)
			s.mu.Lock()
			s.progress++
			if err != nil && s.err == nil {
				s.err = err
			}
		}
		spare = out
	}
}

// wrote wakes the writer. With mu held, after appending to buf.
func (s *sink) wrote() {
	if len(s.buf) > 0 {
		s.work.Signal()
	}
}

// waitRoom waits until output may be appended, with mu held; false means that
// n bytes of it must be dropped, since the run is asked to stop and the reader
// stands still, or since nobody reads any more.
func (s *sink) waitRoom(n int) bool {
	for len(s.buf) >= sinkRoom && s.err == nil && !s.closed && !s.drop {
		s.room.Wait()
	}
	if s.err != nil || s.closed {
		return false
	}
	if len(s.buf) >= sinkRoom {
		s.lost += int64(n)
		return false
	}
	return true
}

// stopWaiting is told that the run was asked to stop. With mu held.
func (s *sink) stopWaiting() {
	if s.hurry || s.closed {
		return
	}
	s.hurry = true
	s.timer = time.AfterFunc(hurryRoom, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop = true
		s.room.Broadcast()
	})
}

// close writes the rest and waits for it. For a run that was asked to stop it
// gives up when the reader takes nothing for hurryClose; the goroutine then ends
// with the write that it hangs in, or with the process.
func (s *sink) close() error {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	hurry := s.hurry
	s.work.Broadcast()
	s.room.Broadcast()
	s.mu.Unlock()
	stuck := !s.wait(hurry)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return fmt.Errorf("write report: %w", s.err)
	case stuck:
		return fmt.Errorf("write report: %w", errStuck)
	}
	return nil
}

func (s *sink) wait(hurry bool) bool {
	if !hurry {
		<-s.done
		return true
	}
	s.mu.Lock()
	seen := s.progress
	s.mu.Unlock()
	for {
		t := time.NewTimer(hurryClose)
		select {
		case <-s.done:
			t.Stop()
			return true
		case <-t.C:
		}
		s.mu.Lock()
		now := s.progress
		s.mu.Unlock()
		if now == seen {
			return false
		}
		seen = now
	}
}
