package report

import (
	"bytes"
	"strconv"
	"sync"
	"time"

	"flowrun.dev/flow/engine"
)

const (
	// outputSlice is how much output is formatted under one hold of the lock.
	outputSlice = 64 << 10
	// heldMost and heldFor bound how long the begun line of a step waits for its
	// end while other steps write as well; alone, a step's line appears at once.
	heldMost = 64 << 10
	heldFor  = 250 * time.Millisecond
)

// plain writes lines.
type plain struct {
	*sink
	n       *narrator
	streams map[streamKey]*stream
	owner   *stream // whose line is begun and not ended, or nil
	scratch []string
	timer   *time.Timer // writes held lines; nil when none is held
	held    int         // streams that hold something
	once    sync.Once
	closing error
}

type streamKey struct {
	step   string
	stderr bool
}

// stream is one output of one step.
type stream struct {
	scrubber
	held []byte
}

func newPlain(cfg Config) (Reporter, error) {
	return &plain{
		sink:    newSink(cfg.Out),
		n:       &narrator{Style: cfg.Style, t: newTally(cfg), starts: true},
		streams: map[streamKey]*stream{},
	}, nil
}

func (r *plain) Observe(ev engine.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.n.t.observe(ev)
	switch b := ev.Body.(type) {
	case engine.StepFinished:
		r.endStreams(b.Step)
	case engine.CancelRequested:
		r.stopWaiting()
	}
	r.scratch = r.n.lines(r.scratch[:0], ev)
	r.say(r.scratch)
}

// say writes whole lines, after ending the one that a step has begun.
func (r *plain) say(lines []string) {
	if len(lines) == 0 || r.err != nil {
		return
	}
	r.take(nil)
	for _, l := range lines {
		r.buf = append(append(r.buf, l...), '\n')
	}
	r.wrote()
}

// take makes st the one whose line is begun; the line of another is ended.
func (r *plain) take(st *stream) {
	if r.owner != nil && r.owner != st {
		r.buf = r.owner.flush(r.buf, false)
	}
	r.owner = st
}

func (r *plain) Output(step string, stderr bool, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := streamKey{step, stderr}
	st := r.streams[key]
	if st == nil {
		st = &stream{scrubber: scrubber{prefix: r.prefix(step, stderr), sgr: r.n.Color}}
		r.streams[key] = st
	}
	for len(p) > 0 {
		n := sliceLen(p)
		// Others may write while this waits: nothing of st is kept across it.
		if r.waitRoom(n) {
			r.put(st, p[:n])
			r.wrote()
		}
		p = p[n:]
	}
}

// sliceLen is how much of p is formatted at once: whole lines where there are any,
// so that an event in between does not cut one.
func sliceLen(p []byte) int {
	if len(p) <= outputSlice {
		return len(p)
	}
	if n := bytes.LastIndexByte(p[:outputSlice], '\n') + 1; n > 0 {
		return n
	}
	return outputSlice
}

func (r *plain) prefix(step string, stderr bool) string {
	t := toneDim
	if stderr {
		t = toneWarn
	}
	return "  " + r.n.paint(toneDim, clean(step)) + " " + r.n.paint(t, "|") + " "
}

// put formats one piece of output. While several steps run, a line that is not
// ended waits for its end, so that lines of different steps are not cut.
func (r *plain) put(st *stream, p []byte) {
	if r.n.t.running <= 1 && len(st.held) == 0 {
		r.emit(st, p)
		return
	}
	end := bytes.LastIndexByte(p, '\n') + 1
	if len(st.held) > 0 && end > 0 {
		r.release(st)
	}
	if end > 0 {
		r.emit(st, p[:end])
		p = p[end:]
	}
	if len(p) == 0 {
		return
	}
	if len(st.held) == 0 {
		r.held++
	}
	st.held = append(st.held, p...)
	if len(st.held) >= heldMost {
		r.release(st)
		return
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(heldFor, r.releaseAll)
	}
}

func (r *plain) emit(st *stream, p []byte) {
	r.take(st)
	r.buf = st.write(r.buf, p)
	if !st.midLine {
		r.owner = nil
	}
}

func (r *plain) release(st *stream) {
	if len(st.held) == 0 {
		return
	}
	r.emit(st, st.held)
	st.held = st.held[:0]
	r.held--
}

// releaseAll is the timer's: a prompt without a line end appears after heldFor.
func (r *plain) releaseAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	if r.closed || r.held == 0 {
		return
	}
	for _, st := range r.streams {
		r.release(st)
	}
	r.wrote()
}

// endStreams ends what a finished step has begun. With mu held.
func (r *plain) endStreams(step string) {
	for _, stderr := range []bool{false, true} {
		key := streamKey{step, stderr}
		st := r.streams[key]
		if st == nil {
			continue
		}
		r.release(st)
		if st.midLine || st.nPart > 0 {
			r.take(st)
			r.buf = st.flush(r.buf, true)
		}
		if r.owner == st {
			r.owner = nil
		}
		delete(r.streams, key)
	}
}

func (r *plain) Final(f Final) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n.t.final = &f
}

func (r *plain) Close() error {
	r.once.Do(func() {
		r.mu.Lock()
		if r.timer != nil {
			r.timer.Stop()
		}
		for key := range r.streams {
			r.endStreams(key.step)
		}
		var tail []string
		if r.lost > 0 {
			tail = append(tail, "flow: "+strconv.FormatInt(r.lost, 10)+
				" bytes of output were not shown, nobody read them; `flow logs "+clean(r.n.t.run)+"` has them")
		}
		if r.n.t.known() {
			r.say(r.n.tail(tail))
		}
		r.mu.Unlock()
		r.closing = r.sink.close()
	})
	return r.closing
}
