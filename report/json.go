package report

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"flowrun.dev/flow/engine"
)

// JSONEvent is one line of the json reporter: an event of the run, with the
// event's own fields in Data as they are stored (durations in nanoseconds). Of
// run_started and run_resumed the definition's text and files are left out; the
// database keeps them.
type JSONEvent struct {
	Type string    `json:"type"`
	Seq  int64     `json:"seq"`
	At   time.Time `json:"at"`
	Run  string    `json:"run"`
	Step string    `json:"step,omitempty"`
	Data any       `json:"data"`
}

// JSONOutput is a line of type "output": live output of a step. Lines come in the
// order of events and output; what is no UTF-8 is in Base64 instead of Text.
type JSONOutput struct {
	Type   string    `json:"type"`
	At     time.Time `json:"at"`
	Run    string    `json:"run"`
	Step   string    `json:"step"`
	Stream string    `json:"stream"` // stdout, stderr
	Text   string    `json:"text,omitempty"`
	Base64 []byte    `json:"base64,omitempty"`
}

// JSONResult is the last line, of type "result".
type JSONResult struct {
	Type     string           `json:"type"`
	Run      string           `json:"run"`
	Status   engine.RunStatus `json:"status"`
	ExitCode int              `json:"exit_code"`
	Class    string           `json:"class"`
	Cause    string           `json:"cause,omitempty"`
	Continue string           `json:"continue,omitempty"` // the command that continues the run
	// Waiting are the questions that nobody answered yet, with the commands that do.
	Waiting  []ApprovalView            `json:"waiting,omitempty"`
	Duration Seconds                   `json:"duration_seconds"`
	Steps    map[engine.StepStatus]int `json:"steps"` // how many in each status
	Denied   int                       `json:"denied_calls"`
	CostUSD  float64                   `json:"cost_usd"`
	// Lost bytes of output that nobody read after the run was asked to stop.
	Lost int64 `json:"lost_bytes,omitempty"`
}

// jsonReporter writes JSON lines.
type jsonReporter struct {
	*sink
	t       *tally
	now     func() time.Time
	enc     *json.Encoder
	parts   map[streamKey][]byte // an incomplete character at the end of a write
	bad     error                // an event that has no JSON form
	once    sync.Once
	closing error
}

// sinkBuf lets the encoder append to the sink; used with its lock held.
type sinkBuf struct{ *sink }

func (b sinkBuf) Write(p []byte) (int, error) {
	b.buf = append(b.buf, p...)
	return len(p), nil
}

func newJSON(cfg Config) (Reporter, error) {
	s := newSink(cfg.Out)
	r := &jsonReporter{sink: s, t: newTally(cfg), now: cfg.Now, parts: map[streamKey][]byte{}}
	r.enc = json.NewEncoder(sinkBuf{s})
	r.enc.SetEscapeHTML(false)
	return r, nil
}

// encode appends one line. With mu held.
func (r *jsonReporter) encode(v any) {
	if r.err != nil {
		return
	}
	if err := r.enc.Encode(v); err != nil && r.bad == nil {
		r.bad = fmt.Errorf("write report: encode event: %w", err)
	}
	r.wrote()
}

func (r *jsonReporter) Observe(ev engine.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.t.observe(ev)
	line := JSONEvent{Type: ev.Body.Type(), Seq: ev.Seq, At: ev.At, Run: r.t.run, Data: ev.Body}
	switch b := ev.Body.(type) {
	case engine.RunStarted:
		b.Text, b.Files = nil, nil
		line.Data = definitionless{b, nil}
	case engine.RunResumed:
		b.Text, b.Files = nil, nil
		line.Data = b
	case engine.ConditionEvaluated:
		line.Step = b.Step
	case engine.StepSkipped:
		line.Step = b.Step
	case engine.StepNotRun:
		line.Step = b.Step
	case engine.StepStarted:
		line.Step = b.Step
	case engine.RetryScheduled:
		line.Step = b.Step
	case engine.ApprovalRequested:
		line.Step = b.Step
	case engine.ApprovalAnswered:
		line.Step = b.Step
	case engine.Egress:
		line.Step = b.Step
	case engine.TurnCompleted:
		line.Step = b.Step
	case engine.CancelRequested:
		r.stopWaiting()
	case engine.StepFinished:
		line.Step = b.Step
		r.endParts(b.Step)
	}
	r.encode(line)
}

// definitionless hides the text, which has no omitempty, behind a field of the
// same name.
type definitionless struct {
	engine.RunStarted
	Text *struct{} `json:"text,omitempty"`
}

func (r *jsonReporter) Output(step string, stderr bool, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := streamKey{step, stderr}
	for len(p) > 0 {
		n := sliceLen(p)
		if r.waitRoom(n) {
			r.put(key, p[:n])
		}
		p = p[n:]
	}
}

func (r *jsonReporter) put(key streamKey, p []byte) {
	if part := r.parts[key]; len(part) > 0 {
		p = append(part, p...)
		delete(r.parts, key)
	}
	// A character that is cut at the end waits for the next write.
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if c := p[len(p)-i]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(p[len(p)-i:]) {
				r.parts[key] = append([]byte(nil), p[len(p)-i:]...)
				p = p[:len(p)-i]
			}
			break
		}
	}
	if len(p) > 0 {
		r.line(key, p)
	}
}

func (r *jsonReporter) line(key streamKey, p []byte) {
	o := JSONOutput{Type: "output", At: r.now().UTC(), Run: r.t.run, Step: key.step, Stream: "stdout"}
	if key.stderr {
		o.Stream = "stderr"
	}
	if utf8.Valid(p) {
		o.Text = string(p)
	} else {
		o.Base64 = p
	}
	r.encode(o)
}

func (r *jsonReporter) endParts(step string) {
	for _, stderr := range []bool{false, true} {
		key := streamKey{step, stderr}
		if part := r.parts[key]; len(part) > 0 {
			r.line(key, part)
			delete(r.parts, key)
		}
	}
}

func (r *jsonReporter) Final(f Final) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.final = &f
}

func (r *jsonReporter) Close() error {
	r.once.Do(func() {
		r.mu.Lock()
		for key := range r.parts {
			r.endParts(key.step)
		}
		r.encode(r.result())
		r.mu.Unlock()
		r.closing = r.sink.close()
		if r.closing == nil {
			r.closing = r.bad
		}
	})
	return r.closing
}

func (r *jsonReporter) result() JSONResult {
	t := r.t
	res := JSONResult{Type: "result", Run: t.run, Duration: Seconds(t.end.Sub(t.begin)),
		Steps: map[engine.StepStatus]int{}, Denied: t.denied, CostUSD: t.cost, Lost: r.lost}
	for st, n := range t.counts {
		if n > 0 {
			res.Steps[st] = n
		}
	}
	res.Status, res.Cause = t.status()
	res.Continue, res.Waiting = t.carryOn(), t.asked
	if t.final != nil {
		res.ExitCode, res.Class = t.final.ExitCode, t.final.Class
	} else if t.finished != nil {
		res.Class = string(t.finished.Class)
	}
	return res
}
