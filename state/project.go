package state

import (
	"cmp"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"flowrun.dev/flow/engine"
)

var zeroTime time.Time

// The moves of a step's row. Each says where it starts; what does not start there
// is a TransitionError, and nothing of the Append is stored.
const (
	// A step without a row is pending.
	moveStart = `INSERT INTO steps (run, step, status, attempt, seq) VALUES (?1, ?2, 'running', ?3, ?4)
		ON CONFLICT (run, step) DO UPDATE SET status = 'running', attempt = ?3, seq = ?4, reason = ''
		WHERE status IN ('pending', 'retrying') AND attempt < ?3`
	moveFinish = `UPDATE steps SET status = ?4, seq = ?5, reason = ?6
		WHERE run = ?1 AND step = ?2 AND attempt = ?3 AND status IN ('running', 'waiting')`
	moveWait = `UPDATE steps SET status = 'waiting', seq = ?3, reason = ?4
		WHERE run = ?1 AND step = ?2 AND status = 'running'`
	moveRetry = `UPDATE steps SET status = 'retrying', seq = ?4, reason = ?5
		WHERE run = ?1 AND step = ?2 AND attempt = ?3 - 1 AND status IN ('failed', 'timed_out')`
	// moveAside is for a step that does not run: skipped, not_run, or failed by
	// its condition.
	moveAside = `INSERT INTO steps (run, step, status, attempt, seq, reason) VALUES (?1, ?2, ?3, 0, ?4, ?5)
		ON CONFLICT (run, step) DO UPDATE SET status = ?3, seq = ?4, reason = ?5
		WHERE status IN ('pending', 'retrying')`
	moveReset = `INSERT INTO steps (run, step, status, attempt, seq, reason) VALUES (?1, ?2, 'pending', 0, ?3, ?4)
		ON CONFLICT (run, step) DO UPDATE SET status = 'pending', seq = ?3, reason = ?4`
)

// project moves the rows that follow from one event.
func (c *change) project(e engine.Event) error {
	key := c.o.row.key
	switch b := e.Body.(type) {
	case engine.StepStarted:
		if err := c.move(e, b.Step, moveStart, key, b.Step, int64(b.Attempt), e.Seq); err != nil {
			return err
		}
		return c.startRecord(e, b)
	case engine.StepFinished:
		err := c.move(e, b.Step, moveFinish, key, b.Step, int64(b.Attempt), string(b.Outcome.Status), e.Seq, b.Outcome.Error)
		if err != nil {
			return err
		}
		return c.finishRecord(e, &b)
	case engine.BackgroundEnded:
		_, err := c.w.exec(`UPDATE records SET log = ?, stdout_head = ?, stdout_tail = ?, stdout_bytes = ?, stderr_head = ?, stderr_tail = ?, stderr_bytes = ?
			WHERE run = ? AND step = ? AND attempt = ?`, b.Log, b.Stdout.Head, b.Stdout.Tail, b.Stdout.Bytes, b.Stderr.Head, b.Stderr.Tail, b.Stderr.Bytes,
			key, b.Step, int64(b.Attempt))
		return err
	case engine.ApprovalRequested:
		return c.move(e, b.Step, moveWait, key, b.Step, e.Seq, b.Message)
	case engine.RunFinished:
		if b.Status != engine.RunWaiting {
			return nil
		}
		// What is open still holds a step that waits.
		_, err := c.w.exec("UPDATE steps SET status = 'waiting', seq = ? WHERE run = ? AND status = 'running'", e.Seq, key)
		return err
	case engine.RetryScheduled:
		return c.move(e, b.Step, moveRetry, key, b.Step, int64(b.Attempt), e.Seq, b.Reason)
	case engine.ConditionEvaluated:
		if b.Error == "" {
			return nil
		}
		return c.move(e, b.Step, moveAside, key, b.Step, string(engine.StepFailed), e.Seq, b.Error)
	case engine.StepSkipped:
		return c.move(e, b.Step, moveAside, key, b.Step, string(engine.StepIsSkipped), e.Seq, b.Reason)
	case engine.StepNotRun:
		return c.move(e, b.Step, moveAside, key, b.Step, string(b.Ended()), e.Seq, b.Reason)
	case engine.RunResumed:
		return c.resume(e, &b)
	}
	return nil
}

func (c *change) move(e engine.Event, step, query string, args ...driver.Value) error {
	n, err := c.w.exec(query, args...)
	if err != nil {
		return fmt.Errorf("move step %q by event %d (%s): %w", step, e.Seq, e.Body.Type(), err)
	}
	if n == 1 {
		return nil
	}
	found := "not there"
	row, err := c.w.row("SELECT status, attempt, seq FROM steps WHERE run = ? AND step = ?", c.o.row.key, step)
	if err != nil {
		return err
	}
	if row != nil {
		found = fmt.Sprintf("%v in attempt %v since event %v", row[0], row[1], row[2])
	}
	return &TransitionError{Run: c.o.run, Seq: e.Seq, Event: e.Body.Type(), Step: step, Found: found}
}

// resume puts the reset steps back and closes the records of attempts that an
// owner before left open: it ended without a word. An approval that is not among the
// reset steps waits on, and so its record stays open.
func (c *change) resume(e engine.Event, b *engine.RunResumed) error {
	key := c.o.row.key
	ids := make([]string, len(b.Reset))
	for i := range b.Reset {
		ids[i] = b.Reset[i].Step
	}
	reset, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	_, err = c.w.exec(`WITH waits (step) AS (SELECT step FROM steps WHERE run = ?2 AND status = 'waiting')
		UPDATE records SET status = 'interrupted', duration = 0, error = CASE WHEN step IN waits THEN ?4 ELSE ?1 END
		WHERE run = ?2 AND status = 'running' AND (step NOT IN waits OR step IN (SELECT value FROM json_each(?3)))`,
		causeDied, key, string(reset), causeWaited)
	if err != nil {
		return err
	}
	kinds, err := json.Marshal(orEmpty(c.o.kinds))
	if err != nil {
		return err
	}
	if _, err := c.w.exec("UPDATE runs SET kinds = ? WHERE key = ? AND kinds <> ?1", string(kinds), key); err != nil {
		return err
	}
	if len(b.Removed) > 0 { // instances that are made anew, and steps that the accepted definition has no more
		removed, err := json.Marshal(b.Removed)
		if err != nil {
			return err
		}
		if _, err := c.w.exec("DELETE FROM steps WHERE run = ? AND step IN (SELECT value FROM json_each(?))", key, string(removed)); err != nil {
			return fmt.Errorf("remove steps: %w", err)
		}
	}
	for _, r := range b.Reset {
		if _, err := c.w.exec(moveReset, key, r.Step, e.Seq, r.Reason); err != nil {
			return fmt.Errorf("reset step %q: %w", r.Step, err)
		}
	}
	return nil
}

func (c *change) startRecord(e engine.Event, b engine.StepStarted) error {
	key, err := c.w.insert("INSERT INTO records (run, step, attempt, kind, status, started_at) VALUES (?, ?, ?, ?, 'running', ?)",
		c.o.row.key, b.Step, int64(b.Attempt), cmp.Or(b.Kind, c.o.kinds[b.Step]), e.At.UnixNano())
	if err != nil {
		return fmt.Errorf("insert record of step %q, attempt %d: %w", b.Step, b.Attempt, err)
	}
	c.records[b.Step] = key
	return nil
}

const updateRecord = `UPDATE records SET status = ?, class = ?, started_at = ?, duration = ?, exit_code = ?, error = ?, command = ?, outputs = ?,
	stdout_head = ?, stdout_tail = ?, stdout_bytes = ?, stderr_head = ?, stderr_tail = ?, stderr_bytes = ?,
	log = ?, checkpoint = ?, sandbox = ?, changed_count = ?, changed = ?, leftover = ?, max_rss = ?,
	provider = ?, model = ?, turns = ?, tool_calls = ?, denied = ?, input_tokens = ?, output_tokens = ?, cache_read = ?, cache_write = ?, cost_usd = ?, agent = ?, usage = ?
	WHERE key = ? AND run = ? AND step = ? AND attempt = ? AND status = 'running'`

// finishRecord fills in the record that the attempt's start inserted.
func (c *change) finishRecord(e engine.Event, b *engine.StepFinished) error {
	record, ok := c.records[b.Step]
	if !ok {
		record, ok = c.o.records[b.Step]
	}
	if !ok { // an attempt that an owner before started
		row, err := c.w.row("SELECT key FROM records WHERE run = ? AND step = ? AND attempt = ?", c.o.row.key, b.Step, int64(b.Attempt))
		if err != nil {
			return err
		}
		if row == nil {
			return &TransitionError{Run: c.o.run, Seq: e.Seq, Event: e.Body.Type(), Step: b.Step, Found: "without a record"}
		}
		record = row[0].(int64) // an INTEGER PRIMARY KEY is nothing else
	}
	args, err := recordArgs(e, b)
	if err != nil {
		return err
	}
	args = append(args, record, c.o.row.key, b.Step, int64(b.Attempt))
	return c.move(e, b.Step, updateRecord, args...)
}

func recordArgs(e engine.Event, b *engine.StepFinished) ([]driver.Value, error) {
	o := &b.Outcome
	started := o.Started
	if started.IsZero() {
		started = e.At.Add(-o.Duration)
	}
	outputs, err := jsonOrNull(o.Outputs, len(o.Outputs) == 0)
	if err != nil {
		return nil, fmt.Errorf("encode outputs of step %q: %w", b.Step, err)
	}
	changed, err := jsonOrNull(o.Changed, len(o.Changed) == 0)
	if err != nil {
		return nil, err
	}
	agent, err := jsonOrNull(o.Agent, o.Agent == nil)
	if err != nil {
		return nil, err
	}
	usage, err := jsonOrNull(o.Usage, o.Usage == nil)
	if err != nil {
		return nil, err
	}
	var a engine.AgentUsage
	if o.Agent != nil {
		a = *o.Agent
	}
	return []driver.Value{
		string(o.Status), string(o.Class), started.UnixNano(), int64(o.Duration), int64(o.ExitCode), o.Error, o.Command, outputs,
		o.Stdout.Head, o.Stdout.Tail, o.Stdout.Bytes, o.Stderr.Head, o.Stderr.Tail, o.Stderr.Bytes,
		o.Log, b.Checkpoint, o.SandboxID, int64(o.ChangedCount), changed, int64(o.Leftover), o.MaxRSS,
		a.Provider, a.Model, int64(a.Turns), int64(a.ToolCalls), int64(a.Denied),
		a.InputTokens, a.OutputTokens, a.CacheReadTokens, a.CacheWriteTokens, a.CostUSD, agent, usage,
	}, nil
}

func jsonOrNull(v any, null bool) (driver.Value, error) {
	if null {
		return nil, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}
