package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"flowrun.dev/flow/workflow"
)

const (
	// inboxEvery is how often the inbox is looked at without a wake-up: a person's
	// `flow cancel` takes at most that long, and a run of 1 ms steps pays nothing.
	inboxEvery = time.Second
	// answerEvery is how often it is while a person is asked.
	answerEvery = 100 * time.Millisecond
	// storeWithin bounds one append or checkpoint: a hanging disk is an error.
	storeWithin = 5 * time.Minute
)

// Loop drives one run. Fill in the exported fields, then call Drive once. The
// goroutine that calls Drive owns Run until Drive returns.
type Loop struct {
	Run       *Run
	Journal   Journal
	Runner    Runner
	Clock     Clock
	Observers []Observer
	// Opening is RunStarted or RunResumed, stored together with the first start;
	// nil when Run has it already.
	Opening Body
	// Wait keeps the run in this process while only people can go on with it; without
	// it the run ends as waiting.
	Wait bool
	// Wakeups, when not nil, says that the inbox has something.
	Wakeups <-chan struct{}

	once    sync.Once
	notify  chan struct{} // buffered 1: asked or emitted has something
	results chan result

	mu      sync.Mutex
	asked   []string // causes, from Interrupt
	emitted []Body   // from the Runner

	// Below: the loop's goroutine only.
	ctx     context.Context
	now     time.Time
	batch   []Event
	waiting []chan<- error // of Durable bodies in the batch
	actions []Action
	starts  []StartStep
	live    map[int]context.CancelCauseFunc // by node
	refs    map[*workflow.Step][]workflow.Ref
	env     func() (map[string]string, error)
	wake    timer
	tick    timer
}

type result struct {
	node, attempt int
	outcome       Outcome
}

// timer is an armed Clock.After.
type timer struct {
	at   time.Time
	c    <-chan time.Time
	stop func()
}

func (l *Loop) setup() {
	l.notify = make(chan struct{}, 1)
	l.results = make(chan result, 64)
	l.live = map[int]context.CancelCauseFunc{}
	l.refs = map[*workflow.Step][]workflow.Ref{}
	l.env = sync.OnceValues(func() (map[string]string, error) { return EnvOf(l.Run) })
}

// Interrupt asks the run to stop: cause is sigint, sigterm or user. The first call
// ends the steps and leaves `finally` its grace time, a second one ends everything
// at once. Safe from any goroutine, before, during and after Drive.
func (l *Loop) Interrupt(cause string) {
	l.once.Do(l.setup)
	l.mu.Lock()
	l.asked = append(l.asked, cause)
	l.mu.Unlock()
	l.poke()
}

func (l *Loop) poke() {
	select {
	case l.notify <- struct{}{}:
	default:
	}
}

// Drive runs the workflow to the end of this attempt and returns the run's
// status. An error is an *Error: what the run wanted to remember could not be
// stored (or somebody else owns the run: ErrNotOwner), so everything was stopped.
// When ctx ends, everything is stopped as after two Interrupts. On return no step
// runs and the sandbox is closed.
func (l *Loop) Drive(ctx context.Context) (RunStatus, error) {
	l.once.Do(l.setup)
	l.ctx = context.WithoutCancel(ctx) // stopping steps goes through their own causes
	defer l.disarm(&l.wake)
	defer l.disarm(&l.tick)
	err := l.drive(ctx)
	if err != nil {
		l.abandon(err)
	}
	closed := l.Runner.Close(l.ctx)
	emitted, _ := l.taken()
	closed = append(onlyEnds(emitted), closed...)
	if err == nil && len(closed) > 0 {
		err = l.store(closed)
	}
	if err != nil {
		return RunInterrupted, asError(err)
	}
	return l.Run.Status, nil
}

// asError gives an error its class: whatever stops the loop is infrastructure.
func asError(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	return &Error{Class: ClassInfrastructure, Err: err}
}

func (l *Loop) drive(ctx context.Context) error {
	l.now = l.Clock.Now()
	if l.Opening != nil {
		if err := l.record(l.Opening); err != nil {
			return err
		}
	}
	l.arm(&l.tick, l.now.Add(inboxEvery))
	done, outcomes := ctx.Done(), []result(nil)
	for {
		if err := l.turn(outcomes); err != nil {
			return err
		}
		if l.Run.Status != RunRunning {
			return nil
		}
		outcomes = outcomes[:0]
		select {
		case r := <-l.results:
			outcomes = l.collect(append(outcomes, r))
		case <-l.notify:
		case <-l.wake.c:
			l.wake.c = nil
		case <-l.tick.c:
			l.tick.c = nil
			if err := l.inbox(); err != nil {
				return err
			}
			l.arm(&l.tick, l.Clock.Now().Add(l.inboxPause()))
		case <-l.Wakeups:
			if err := l.inbox(); err != nil {
				return err
			}
		case <-done:
			done = nil
			l.Interrupt("sigterm")
			l.Interrupt("sigterm")
		}
		l.now = l.Clock.Now()
	}
}

// collect takes all outcomes that are there: they share one append.
func (l *Loop) collect(rs []result) []result {
	for {
		select {
		case r := <-l.results:
			rs = append(rs, r)
		default:
			return rs
		}
	}
}

// turn folds what happened, decides until only effects are left, makes all of it
// durable in one append, and then acts.
func (l *Loop) turn(outcomes []result) error {
	emitted, asked := l.taken()
	var ends []Body
	for _, b := range emitted {
		if _, ok := b.(BackgroundEnded); ok {
			ends = append(ends, b) // the step's own end comes first
			continue
		}
		if d, ok := b.(Durable); ok {
			b = d.Body
			l.waiting = append(l.waiting, d.Done)
		}
		if err := l.record(b); err != nil {
			return err
		}
	}
	for _, cause := range asked {
		if err := l.record(CancelRequested{Cause: cause}); err != nil {
			return err
		}
	}
	if err := l.finish(outcomes); err != nil {
		return err
	}
	if err := l.backgroundEnds(ends); err != nil {
		return err
	}
	if l.Run.asking.len > 0 {
		// Before anything follows from the lack of an answer.
		if err := l.inbox(); err != nil {
			return err
		}
	}
	if err := l.decide(); err != nil {
		return err
	}
	if err := l.flush(); err != nil {
		return err
	}
	l.act()
	return nil
}

func (l *Loop) taken() (emitted []Body, asked []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	emitted, asked = l.emitted, l.asked
	l.emitted, l.asked = nil, nil
	return emitted, asked
}

// record folds an event that the next flush makes durable. The Run is then ahead
// of the journal, for as long as nothing is done about it.
func (l *Loop) record(b Body) error {
	e := Event{Seq: l.Run.Seq + 1, At: l.now.UTC(), Body: b}
	if err := l.Run.Apply(e); err != nil {
		return err
	}
	l.batch = append(l.batch, e)
	return nil
}

// flush appends the batch and shows it to the observers.
func (l *Loop) flush() error {
	if len(l.batch) == 0 {
		return nil
	}
	ctx, cancel := l.bounded("append events")
	defer cancel()
	if err := l.Journal.Append(ctx, l.batch); err != nil {
		return fmt.Errorf("append events %d to %d of run %s: %w", l.batch[0].Seq, l.Run.Seq, l.Run.ID, err)
	}
	for _, e := range l.batch {
		for _, o := range l.Observers {
			o.Observe(e)
		}
	}
	l.batch = nil // the journal may keep the slice
	for _, done := range l.waiting {
		done <- nil
	}
	l.waiting = l.waiting[:0]
	return nil
}

func (l *Loop) store(bodies []Body) error {
	l.now = l.Clock.Now()
	for _, b := range bodies {
		if err := l.record(b); err != nil {
			return err
		}
	}
	return l.flush()
}

func (l *Loop) bounded(what string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(l.ctx, storeWithin, fmt.Errorf("%s: no answer within %s", what, storeWithin))
}

func (l *Loop) inboxPause() time.Duration {
	if l.Run.asking.len > 0 {
		return answerEvery
	}
	return inboxEvery
}

func (l *Loop) inbox() error {
	ctx, cancel := l.bounded("read inbox")
	defer cancel()
	bodies, err := l.Journal.Inbox(ctx)
	if err != nil {
		return fmt.Errorf("read inbox of run %s: %w", l.Run.ID, err)
	}
	l.now = l.Clock.Now()
	for _, b := range bodies {
		if a, ok := b.(ApprovalAnswered); ok && !l.Run.Expects(a) {
			continue // to a question that is not open any more
		}
		if err := l.record(b); err != nil {
			return err
		}
	}
	return nil
}

// emit keeps a fact for the next batch. It does not wake the loop, unless somebody
// waits for it: an append of its own would cost a run of one short step a quarter of
// its time, and the inbox tick comes within a second.
func (l *Loop) emit(b Body) {
	l.mu.Lock()
	l.emitted = append(l.emitted, b)
	l.mu.Unlock()
	switch b.(type) {
	case Durable, BackgroundEnded: // steps that need the process must not start
		l.poke()
	}
}

// abandon ends all steps after an error and waits for them. What they did is not
// recorded: a resume runs them again.
func (l *Loop) abandon(cause error) {
	for _, stop := range l.live {
		stop(&StopError{Status: StepInterrupted, Reason: fmt.Sprintf("the run cannot go on: %v", cause)})
	}
	for len(l.live) > 0 {
		r := <-l.results
		delete(l.live, r.node)
	}
}

// arm lets t fire at a time; the zero time disarms it. A timer that is armed for
// that time already is left alone, so that a deadline costs nothing per step.
func (l *Loop) arm(t *timer, at time.Time) {
	if t.c != nil && t.at.Equal(at) {
		return
	}
	l.disarm(t)
	if at.IsZero() {
		return
	}
	t.at = at
	t.c, t.stop = l.Clock.After(at.Sub(l.Clock.Now()))
}

func (l *Loop) disarm(t *timer) {
	if t.c != nil {
		t.stop()
	}
	t.c = nil
}
