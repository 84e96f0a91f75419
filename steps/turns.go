package steps

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// storedTurn is the content of one turn, exact and private like a checkpoint. Its
// SHA-256 stands for the step, the turn, the files and, by Prev, for the whole
// conversation until there.
type storedTurn struct {
	Version      int        `json:"version"`
	Step         string     `json:"step"`
	Conversation int        `json:"conversation"`
	Checkpoint   string     `json:"checkpoint"` // of the files
	Prev         string     `json:"prev,omitempty"`
	Turn         agent.Turn `json:"turn"`
	// Session, of turn 0, is the conversation with which this one went on.
	Session *session `json:"session,omitempty"`
}

// session is the end of another step's conversation.
type session struct {
	Step string        `json:"step"`
	At   engine.TurnAt `json:"at"`
}

const (
	turnVersion = 1
	maxTurn     = 128 << 20
	maxTurns    = 1 << 20
	maxSessions = 1000
)

// conversation stores the turns of one attempt as they come.
type conversation struct {
	h    *Host
	sb   sandbox.Sandbox
	a    engine.Attempt
	emit func(engine.Body)
	ctx  context.Context

	at      int      // the attempt in which it began
	prev    string   // Data of the last turn
	session *session // with which it goes on, nil for none
}

// turn stores one turn: its content, the files, and the event that names both, in
// one transaction. It returns when they are durable.
func (c *conversation) turn(t agent.Turn) error {
	files, err := c.h.turnFiles(c.ctx, c.sb)
	if err != nil {
		return err
	}
	stored := storedTurn{Version: turnVersion, Step: c.a.Step.ID, Conversation: c.at, Checkpoint: files, Prev: c.prev, Turn: t}
	if t.Index == 0 {
		stored.Session = c.session
	}
	raw, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encode turn %d: %w", t.Index+1, err)
	}
	sum := sha256.Sum256(raw)
	batch, err := c.h.cfg.Checkpoints.Begin(c.ctx)
	if err != nil {
		return fmt.Errorf("store turn %d: %w", t.Index+1, err)
	}
	defer batch.Abort()
	if err := errors.Join(batch.Put(sum, raw), batch.Seal()); err != nil {
		return fmt.Errorf("store turn %d: %w", t.Index+1, err)
	}
	data := hex.EncodeToString(sum[:])
	leftOut := 0
	if t.Compacted != nil {
		leftOut = t.Compacted.LeftOut
	}
	done := make(chan error, 1)
	c.emit(engine.Durable{Done: done, Body: engine.TurnCompleted{
		Step: c.a.Step.ID, Attempt: c.a.Attempt,
		TurnAt:      engine.TurnAt{Conversation: c.at, Turn: t.Index, Checkpoint: files, Data: data},
		InputTokens: t.Spent.InputTokens, OutputTokens: t.Spent.OutputTokens, CacheReadTokens: t.Spent.CacheReadTokens,
		CacheWriteTokens: t.Spent.CacheWriteTokens, CostUSD: t.Spent.CostUSD, LeftOut: leftOut,
	}})
	select {
	case err := <-done:
		c.prev = data
		return err
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}

// turnFiles stores the files at a turn's end. While another step runs they would not
// be those of this turn: then it stores nothing and returns "".
func (h *Host) turnFiles(ctx context.Context, sb sandbox.Sandbox) (string, error) {
	if err := h.brought(); err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy > 1 || !h.isOwn(sb) {
		return "", nil
	}
	snap, err := sb.Snapshot(ctx, h.cfg.Checkpoints)
	if err != nil {
		return "", fmt.Errorf("store the workspace: %w", err)
	}
	id, err := h.cfg.Checkpoints.StageCheckpoint(ctx, h.cfg.RunID, snap, h.last)
	if err != nil {
		return "", fmt.Errorf("store the workspace: %w", err)
	}
	h.last = id
	return id, nil
}

// isOwn reports whether an attempt's sandbox, which may be wrapped, is the run's own.
// mu is held.
func (h *Host) isOwn(sb sandbox.Sandbox) bool {
	return h.own != nil && h.own.Info().ID == sb.Info().ID
}

// goOn makes the conversation of an attempt: a new one, or the one that it continues,
// with the files of its last complete turn.
func (h *Host) goOn(ctx context.Context, sb sandbox.Sandbox, a engine.Attempt, emit func(engine.Body)) (*conversation, []agent.Turn, error) {
	c := &conversation{h: h, sb: sb, a: a, emit: emit, ctx: ctx, at: a.Attempt}
	if a.Session != nil {
		c.session = &session{Step: a.SessionStep, At: *a.Session}
	}
	at := a.Continue
	if at == nil || at.Checkpoint == "" {
		return c, nil, nil
	}
	turns, before, err := conversationOf(ctx, h.cfg.Checkpoints, a.Step.ID, *at)
	if err != nil {
		return nil, nil, err
	}
	if !before.same(c.session) {
		return nil, nil, fmt.Errorf("continue the conversation of step %s: it went on with another conversation of step %s; begin it anew with flow resume --from %s",
			a.Step.ID, a.SessionStep, a.Step.ID)
	}
	same, err := h.restoreTurn(ctx, sb, at.Checkpoint)
	if err != nil || !same {
		return c, nil, err // another step runs: the conversation begins anew, on the files that are there
	}
	c.at, c.prev = at.Conversation, at.Data
	return c, turns, nil
}

// restoreTurn makes the files those of a turn. False while another step runs, which
// shares them.
func (h *Host) restoreTurn(ctx context.Context, sb sandbox.Sandbox, id string) (bool, error) {
	if err := h.brought(); err != nil {
		return false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy > 1 || !h.isOwn(sb) {
		return false, nil
	}
	m, err := h.cfg.Checkpoints.Manifest(ctx, id)
	if err != nil {
		return false, fmt.Errorf("read checkpoint %s: %w", id, err)
	}
	if err := sb.Restore(ctx, h.cfg.Checkpoints, m); err != nil {
		return false, fmt.Errorf("restore checkpoint %s: %w", id, err)
	}
	h.last = id
	return true, makeStepDir(sb)
}

// history are the turns of the conversations with which an attempt goes on, oldest
// first.
func (h *Host) history(ctx context.Context, a engine.Attempt) ([]agent.Turn, error) {
	name := a.Step.Agent.Session
	if name == "" {
		return nil, nil
	}
	if a.Session == nil {
		return nil, fmt.Errorf("continue the conversation of step %s: it has none in this run (it was skipped, or failed before its first answer)", name)
	}
	var all [][]agent.Turn
	for s := (&session{Step: a.SessionStep, At: *a.Session}); s != nil; {
		turns, before, err := conversationOf(ctx, h.cfg.Checkpoints, s.Step, s.At)
		if err != nil {
			return nil, err
		}
		if all = append(all, turns); len(all) > maxSessions {
			return nil, fmt.Errorf("continue the conversation of step %s: more than %d conversations one after the other", name, maxSessions)
		}
		s = before
	}
	slices.Reverse(all)
	return slices.Concat(all...), nil
}

func (s *session) same(o *session) bool {
	return s == nil && o == nil || s != nil && o != nil && s.Step == o.Step && s.At.Data == o.At.Data
}

// ReadTurn reads one turn of a step.
func ReadTurn(ctx context.Context, st checkpoint.Store, step string, at engine.TurnAt) (agent.Turn, error) {
	s, err := readTurn(ctx, st, at.Data)
	if err == nil && (s.Step != step || s.Turn.Index != at.Turn) {
		err = fmt.Errorf("what is stored belongs to turn %d of step %s", s.Turn.Index+1, s.Step)
	}
	if err != nil {
		return agent.Turn{}, fmt.Errorf("read turn %d of step %s: %w", at.Turn+1, step, err)
	}
	return s.Turn, nil
}

// Turns reads a conversation back from the store, from its first turn to at. What does
// not fit together is an error: nothing is guessed.
func Turns(ctx context.Context, st checkpoint.Store, step string, at engine.TurnAt) ([]agent.Turn, error) {
	turns, _, err := conversationOf(ctx, st, step, at)
	return turns, err
}

// conversationOf is Turns, with the conversation that it went on with.
func conversationOf(ctx context.Context, st checkpoint.Store, step string, at engine.TurnAt) ([]agent.Turn, *session, error) {
	if at.Turn < 0 || at.Turn > maxTurns {
		return nil, nil, fmt.Errorf("read the conversation of step %s: turn %d", step, at.Turn)
	}
	var turns []agent.Turn
	var first *session
	name, files := at.Data, at.Checkpoint
	for i := at.Turn; i >= 0; i-- {
		s, err := readTurn(ctx, st, name)
		if err != nil {
			return nil, nil, fmt.Errorf("read turn %d of step %s: %w", i+1, step, err)
		}
		if s.Version != turnVersion || s.Step != step || s.Conversation != at.Conversation || s.Turn.Index != i || i == at.Turn && s.Checkpoint != files {
			return nil, nil, fmt.Errorf("read turn %d of step %s: what is stored belongs to turn %d of step %s, conversation %d, checkpoint %s",
				i+1, step, s.Turn.Index+1, s.Step, s.Conversation, s.Checkpoint)
		}
		turns = append(turns, s.Turn)
		name, first = s.Prev, s.Session
	}
	if name != "" {
		return nil, nil, fmt.Errorf("read the conversation of step %s: it has a turn before its first", step)
	}
	slices.Reverse(turns)
	return turns, first, nil
}

func readTurn(ctx context.Context, st checkpoint.Store, name string) (*storedTurn, error) {
	var hash checkpoint.Hash
	if b, err := hex.DecodeString(name); err != nil || len(b) != len(hash) {
		return nil, fmt.Errorf("%q is no content's name", name)
	} else {
		copy(hash[:], b)
	}
	r, err := st.Open(ctx, hash)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxTurn+1))
	switch {
	case err != nil:
		return nil, err
	case sha256.Sum256(raw) != hash:
		return nil, errors.New("the content is damaged")
	}
	s := &storedTurn{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(s); err != nil {
		return nil, err
	}
	return s, nil
}
