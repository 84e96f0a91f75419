package state

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"flowrun.dev/flow/engine"
)

// AnsweredError: a question of a run was answered before.
type AnsweredError struct {
	Run   string
	First engine.ApprovalAnswered
}

func (e *AnsweredError) Error() string {
	return fmt.Sprintf("run %s, step %s: %s answered it already", e.Run, e.First.Step, e.First.By)
}

// PutAnswer leaves a person's answer for whoever owns the run, or will. A question is
// answered once: *AnsweredError when somebody was first, whether the run knows of it
// yet or not. ErrNotFound when there is no such run.
func (s *Store) PutAnswer(ctx context.Context, run string, b engine.ApprovalAnswered) error {
	name := "answer run " + run
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	body, err := encodeBody(b)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	err = s.tx(func(w *writer) error {
		first, err := answerOf(w, run, b.Request)
		if err != nil {
			return err
		}
		if first != nil {
			return &AnsweredError{Run: run, First: *first}
		}
		n, err := w.exec("INSERT INTO inbox (run, fence, at, type, body) SELECT key, fence, ?, ?, ? FROM runs WHERE id = ?",
			b.At.UnixNano(), b.Type(), string(body), run)
		if err == nil && n != 1 {
			err = ErrNotFound
		}
		s.puts++
		return err
	})
	return wrap(name, err)
}

func answerOf(w *writer, run string, request int64) (*engine.ApprovalAnswered, error) {
	var found *engine.ApprovalAnswered
	err := w.each(`SELECT body FROM inbox WHERE run = (SELECT key FROM runs WHERE id = ?)
		AND type = 'approval_answered' AND json_extract(body, '$.request') = ?`, func(row []driver.Value) error {
		var r scan
		b, err := decodeAnswer(r.text(row[0]))
		found = &b
		if err == nil {
			err = r.err
		}
		return err
	}, run, request)
	return found, err
}

func decodeAnswer(body string) (engine.ApprovalAnswered, error) {
	b, err := engine.Decode(engine.ApprovalAnswered{}.Type(), []byte(body))
	if err != nil {
		return engine.ApprovalAnswered{}, err
	}
	a, ok := b.(engine.ApprovalAnswered)
	if !ok {
		return a, fmt.Errorf("%w: an answer holds %T", ErrCorrupt, b)
	}
	return a, nil
}

// OpenAnswers are the answers that no owner of the run has taken yet.
func (s *Store) OpenAnswers(ctx context.Context, run string) ([]engine.ApprovalAnswered, error) {
	var out []engine.ApprovalAnswered
	err := s.each(ctx, `SELECT body FROM inbox WHERE run = (SELECT key FROM runs WHERE id = ?)
		AND taken = 0 AND type = 'approval_answered' ORDER BY id`, []any{run}, func(rows *sql.Rows) error {
		var body string
		if err := rows.Scan(&body); err != nil {
			return err
		}
		a, err := decodeAnswer(body)
		out = append(out, a)
		return err
	})
	return out, wrap("read answers of run "+run, err)
}
