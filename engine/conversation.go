package engine

import "flowrun.dev/flow/workflow"

// TurnCompleted is one complete turn of a step's conversation: its answer, its
// tools' results, and the files as they were at that moment, stored together.
type TurnCompleted struct {
	Step    string `json:"step"`
	Attempt int    `json:"attempt"`
	TurnAt
	// Of this turn alone.
	InputTokens      int64   `json:"input_tokens,omitempty"`
	OutputTokens     int64   `json:"output_tokens,omitempty"`
	CacheReadTokens  int64   `json:"cache_read_tokens,omitempty"`
	CacheWriteTokens int64   `json:"cache_write_tokens,omitempty"`
	CostUSD          float64 `json:"cost_usd,omitempty"`
	// LeftOut are the old results of tools that were left out of this turn's request and
	// of all later ones, as the conversation no longer fitted.
	LeftOut int `json:"left_out,omitempty"`
}

// TurnAt is where a conversation can go on.
type TurnAt struct {
	// Conversation is the attempt in which it began; later attempts continue it.
	Conversation int `json:"conversation"`
	Turn         int `json:"turn"` // from 0
	// Checkpoint of the files at the turn's end, "" when they were not stored (another
	// step was changing them): the conversation cannot go on from here.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Data names the turn's content, a SHA-256 in hex. The content holds the step, the
	// turn, Checkpoint, and the Data of the turn before: so it is the one id of files
	// and conversation together.
	Data string `json:"data"`
}

// Type of the event.
func (TurnCompleted) Type() string { return "turn_completed" }

// Durable is a Body whose emitter waits until it is stored: Done gets nil then. When
// it cannot be stored, the step's context ends instead. Done has room for one value.
type Durable struct {
	Body
	Done chan<- error
}

// turn: running → running, with a place where the conversation can go on.
func (r *Run) turn(i int, seq int64, b TurnCompleted) bool {
	n := &r.Nodes[i]
	if n.Status != StepRunning || b.Attempt != n.Attempts || b.Conversation < 1 || b.Conversation > b.Attempt {
		return false
	}
	if p := n.Turn; p != nil && p.Conversation == b.Conversation && b.Turn <= p.Turn {
		return false // a completed turn does not come twice
	}
	at := b.TurnAt
	n.Turn, n.Said = &at, &at
	if b.Checkpoint != "" {
		r.Line = append(r.Line, CheckpointAt{ID: b.Checkpoint, Step: b.Step, Seq: seq, Turn: true})
	}
	return true
}

// sessionOf is the step whose conversation a step goes on with, "" for none.
func sessionOf(s *workflow.Step) string {
	if s.Agent == nil {
		return ""
	}
	return s.Agent.Session
}

// continues says whether a conversation that ended so goes on in the next attempt:
// what stopped it was not its own end.
func continues(o Outcome) bool {
	switch o.Status {
	case StepInterrupted, StepCancelled, StepTimedOut:
		return true
	case StepFailed:
		return o.Class == ClassInfrastructure || o.Class == ClassRateLimit || o.Class == ClassBudget || o.Class == ClassTimeout
	}
	return false
}

// lastTurn finds the conversation that a resume continues: that of a step that runs
// again only because it was stopped, at its last complete turn, if the files of that
// turn hold all that position holds. It returns position and id unchanged when there
// is none. Only turns after the position count, so nothing that stays done is lost.
func (p *resumePlan) lastTurn(opt ResumeOptions, before, position int64, id string) (int64, string) {
	line := p.run.Line
	for k := len(line) - 1; k >= 0; k-- {
		c := line[k]
		if !c.Turn || c.Seq <= position || before > 0 && c.Seq >= before || c.Step == opt.From || opt.Changed[c.Step] != "" {
			continue
		}
		n, ok := p.run.Node(c.Step)
		if !ok || n.Turn == nil || n.Turn.Checkpoint != c.ID || !p.resumes(c.Step) {
			continue
		}
		return c.Seq, c.ID
	}
	return position, id
}

// resumes: the step runs again (or never began to, since the last resume), and nothing that it needs does.
func (p *resumePlan) resumes(step string) bool {
	i, ok := p.x.find(step)
	if !ok || p.dropped[i] || p.why[i] == "" && (p.old[i] == nil || p.old[i].Status != StepPending) {
		return false
	}
	for _, need := range p.x.graph[i].needs {
		if p.why[need] != "" {
			return false
		}
	}
	return true
}
