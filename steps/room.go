package steps

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Place is the driver chosen for a kind of sandbox.
type Place struct {
	Driver sandbox.Driver
	// Capabilities of the driver on this machine.
	Capabilities sandbox.Capabilities
	// Mounts that every sandbox of the kind shows, e.g. an agent's own program.
	Mounts []sandbox.Mount
}

// room is a kind of sandbox of the run: its own, or a named one.
type room struct {
	Place
	spec  *workflow.SandboxSpec
	steps []*workflow.Step // that run in one of them
	// What follows from those, looked up once and not for each sandbox.
	network sandbox.Network
	catch   []int
	inPlace bool // steps work in workspace.from itself
	n       int  // living ones; guarded by house.mu

	warming sync.Mutex
	warmed  bool
}

// apart: steps in it share nothing but the workspace.
func (r *room) apart() bool {
	return r.spec.Reuse == workflow.ReuseStep || r.spec.Reuse == workflow.ReusePool
}

// member is one living sandbox.
type member struct {
	sandbox.Sandbox
	room *room
	use  string // that it was made for
	// unclean: what a fork's step left in the scratch folders has to go first.
	unclean bool
	born    time.Time
	used    atomic.Bool // something ran in it
	// told: people and records know of it.
	told bool
	// below is what it was told to lie below its workspace.
	below *checkpoint.Manifest
	// look is the one that its source waits to be brought in with (bringLater).
	look *checkpoint.Look
}

// lost reports whether the sandbox has ended.
func (m *member) lost() bool { return ended(m.Sandbox) }

func ended(sb sandbox.Sandbox) bool {
	select {
	case <-sb.Done():
		return true
	default:
		return false
	}
}

// house counts the living sandboxes of a run, and keeps those that nobody uses.
//
// Nobody waits for ever: an attempt holds at most one of them, ends, and gives it
// back; one that waits holds none; and what nobody uses makes room (evict).
type house struct {
	most int // living ones at the same time

	mu     sync.Mutex
	n      int // living ones, and those that are being made
	idle   []*member
	freed  chan struct{} // closed when there may be room
	closed bool
}

func newHouse(most int) *house { return &house{most: most, freed: make(chan struct{})} }

// wake lets those who wait look again. mu is held.
func (s *house) wake() {
	close(s.freed)
	s.freed = make(chan struct{})
}

// take removes an idle one of the room (nil: of any). mu is held.
func (s *house) take(r *room) *member {
	for i, m := range s.idle {
		if r == nil || m.room == r {
			s.idle = append(s.idle[:i:i], s.idle[i+1:]...)
			return m
		}
	}
	return nil
}

// add counts one that is being made. mu is held.
func (s *house) add(r *room, use string) {
	s.n++
	if use == usePool {
		r.n++ // others of the kind (`sandbox: fresh`) are beside the pool
	}
}

// errClosed is what who still waits for a sandbox at the run's end is told.
var errClosed = errors.New("the run has ended")

// full: the room has all that it may have.
func (r *room) full() bool { return r.spec.Reuse == workflow.ReusePool && r.n >= r.spec.Pool.Size }

// newRooms finds the kinds of sandbox and the steps in each.
func newRooms(cfg *Config) map[string]*room {
	w := cfg.Workflow
	rooms := map[string]*room{"": {Place: Place{Driver: cfg.Driver, Capabilities: cfg.Capabilities, Mounts: cfg.Mounts}, spec: &w.Sandbox}}
	for _, s := range w.Sandboxes {
		rooms[s.Name] = &room{Place: cfg.Named[s.Name], spec: s}
	}
	for _, s := range allSteps(w) {
		r := rooms[w.SandboxOf(s).Name]
		r.steps = append(r.steps, s)
	}
	for _, r := range rooms {
		r.network = networkOf(r.steps)
		r.inPlace = w.Workspace.InPlace
		r.catch = r.catchPorts()
	}
	return rooms
}

func (h *Host) roomOf(s *workflow.Step) *room { return h.rooms[h.cfg.Workflow.SandboxOf(s).Name] }

// mostSandboxes is the bound of living sandboxes: as the file says, or one for each
// step that may run at the same time, the run's own, and the pools.
func mostSandboxes(w *workflow.Workflow) int {
	if w.Sandbox.MaxSandboxes > 0 {
		return w.Sandbox.MaxSandboxes
	}
	most := max(w.MaxParallel, 1) + 1 + w.Sandbox.Pool.Size
	for _, s := range w.Sandboxes {
		most += s.Pool.Size
	}
	return most
}

// acquire takes an idle sandbox of a room, or makes one. Where there is no room for
// it, it waits. need is how long it has to live, 0 for no matter.
func (h *Host) acquire(ctx context.Context, r *room, use string, need time.Duration, emit func(engine.Body)) (*member, error) {
	s := h.house
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, errClosed
		}
		if m := s.take(r); m != nil && use != useFresh {
			s.mu.Unlock()
			if m.lost() || m.tired(need) || m.unclean && reset(ctx, m) != nil {
				h.end(ctx, m)
				h.tellEnded(emit)
				continue
			}
			m.unclean = false
			h.tell(m, use, emit)
			return m, nil
		} else if m != nil {
			s.idle = append(s.idle, m)
		}
		full := use == usePool && r.full()
		if !full && s.n < s.most {
			s.add(r, use)
			s.mu.Unlock()
			return h.make(ctx, r, use, emit)
		}
		var out *member
		if !full {
			out = s.take(nil)
		}
		freed := s.freed
		s.mu.Unlock()
		if out == nil && !full {
			out = h.evictOwn()
		}
		if out != nil {
			h.end(ctx, out)
			h.tellEnded(emit)
			continue
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// make creates a sandbox, whose place is reserved.
func (h *Host) make(ctx context.Context, r *room, use string, emit func(engine.Body)) (*member, error) {
	m, err := h.made(ctx, r, use)
	if err == nil {
		h.tell(m, use, emit)
	}
	return m, err
}

func (h *Host) made(ctx context.Context, r *room, use string) (*member, error) {
	sb, err := h.createRetried(ctx, r, use == useOwn)
	if err != nil {
		h.vacate(r, use)
		return nil, err
	}
	m := &member{Sandbox: sb, room: r, use: use, born: time.Now()}
	m.look = h.looks.take(sb.Info().ID)
	if m.layeredOf() != nil && m.look == nil {
		m.below = h.below.held()
	}
	return m, nil
}

func created(m *member, use string) engine.SandboxCreated {
	info := m.Info()
	return engine.SandboxCreated{ID: info.ID, Driver: info.Driver, Tier: string(info.Tier), Reason: m.room.Capabilities.Weakness(), Name: m.room.spec.Name, Use: use}
}

// tell of a sandbox, once. Forks of the run's own are not told of: there may be one
// for each step.
func (h *Host) tell(m *member, use string, emit func(engine.Body)) {
	if m.told || use == useFork {
		return
	}
	m.told = true
	emit(created(m, use))
}

// vacate gives a reserved place up.
func (h *Host) vacate(r *room, use string) {
	s := h.house
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n--
	if use == usePool {
		r.n--
	}
	s.wake()
}

// end closes a sandbox. It is told of with the next event that is.
func (h *Host) end(ctx context.Context, m *member) {
	h.closeSandbox(ctx, m.Sandbox)
	h.forgetDoor(m.Info().ID)
	h.vacate(m.room, m.use)
	if m.told {
		h.endedMu.Lock()
		h.endedOnes = append(h.endedOnes, engine.SandboxClosed{ID: m.Info().ID})
		h.endedMu.Unlock()
	}
}

// tellEnded tells of the sandboxes that were closed since it was last asked.
func (h *Host) tellEnded(emit func(engine.Body)) {
	h.endedMu.Lock()
	list := h.endedOnes
	h.endedOnes = nil
	h.endedMu.Unlock()
	for _, b := range list {
		emit(b)
	}
}

// endLater closes a sandbox beside what else happens: a big tree takes its time.
// Close waits for it.
func (h *Host) endLater(ctx context.Context, m *member) {
	h.drops.Go(func() { h.end(context.WithoutCancel(ctx), m) })
}

// cleanTimeout bounds the question whether a sandbox is clean; init answers in some
// 10 µs.
const cleanTimeout = 2 * time.Second

// asMade reports whether a sandbox is, but for its home, as it was made: making one
// costs ten times what a small step does.
func asMade(ctx context.Context, m *member) bool {
	r, ok := m.Sandbox.(sandbox.Reusable)
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	clean, err := r.Clean(ctx)
	return err == nil && clean
}

// canBeCleaned: the driver can take away what was left, and prove it.
func canBeCleaned(m *member) bool {
	_, proves := m.Sandbox.(sandbox.Reusable)
	_, scrubs := m.Sandbox.(sandbox.Scrubber)
	return proves && scrubs
}

// release gives a sandbox back after an attempt: it is kept for the next one, or
// closed. That of a fork is kept where no step can find what another one left.
func (h *Host) release(ctx context.Context, m *member, use string) {
	keep := use == usePool || use == useNamed
	if use == useFork && !m.lost() {
		m.unclean = !asMade(ctx, m)
		keep = !m.unclean || canBeCleaned(m)
	}
	s := h.house
	s.mu.Lock()
	keep = keep && !s.closed && !m.lost()
	if keep && use == useNamed {
		for _, other := range s.idle {
			keep = keep && other.room != m.room // one of a name is enough
		}
	}
	if keep {
		s.idle = append(s.idle, m)
		s.wake()
	}
	s.mu.Unlock()
	if !keep {
		h.endLater(ctx, m)
	}
}

// keep gives one that nobody uses to the next who asks.
func (h *Host) keep(m *member) {
	s := h.house
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, m)
	s.wake()
}

// closeHouse ends all that nobody uses; nobody gets one meanwhile.
func (h *Host) closeHouse(ctx context.Context) {
	s := h.house
	s.mu.Lock()
	s.closed = true
	idle := s.idle
	s.idle = nil
	s.wake()
	s.mu.Unlock()
	for _, m := range idle {
		h.endLater(ctx, m)
	}
	h.drops.Wait()
	s.mu.Lock()
	s.closed = false
	s.mu.Unlock()
}

// What a sandbox is for, as events say it.
const (
	useOwn   = ""
	useFork  = "fork"  // of a step that overlaps others
	useFresh = "fresh" // of one step
	usePool  = "pool"
	useNamed = "named"
)
