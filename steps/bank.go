package steps

import (
	"sync"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/workflow"
)

// bank holds the accounts of a run and of its agent steps, which live as long as the
// run: attempts and resumes spend from one budget.
type bank struct {
	run   *agent.Account
	spent map[string]agent.Spending // before this process

	mu    sync.Mutex
	steps map[string]*agent.Account
}

func newBank(b workflow.Budget, spent map[string]agent.Spending) *bank {
	var all agent.Spending
	for _, s := range spent {
		all = all.Plus(s)
	}
	return &bank{run: agent.NewAccount("the run", agent.Budget(b), all, nil), spent: spent, steps: map[string]*agent.Account{}}
}

// of is the account of a step.
func (k *bank) of(s *workflow.Step) *agent.Account {
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.steps[s.ID]
	if !ok {
		a = agent.NewAccount("step "+s.ID, agent.Budget(s.Agent.Budget), k.spent[s.ID], k.run)
		k.steps[s.ID] = a
	}
	return a
}

// Spent is what the agents of a run spent so far, by step, as its events say.
func Spent(events []engine.Event) map[string]agent.Spending {
	out := map[string]agent.Spending{}
	open := map[string]agent.Spending{} // of attempts that have not ended: their turns
	for _, e := range events {
		switch b := e.Body.(type) {
		case engine.TurnCompleted:
			open[b.Step] = open[b.Step].Plus(agent.Spending{Requests: 1, InputTokens: b.InputTokens, OutputTokens: b.OutputTokens,
				CacheReadTokens: b.CacheReadTokens, CacheWriteTokens: b.CacheWriteTokens, CostUSD: b.CostUSD})
		case engine.StepStarted:
			// An attempt before it that did not end was killed.
			out[b.Step] = out[b.Step].Plus(open[b.Step])
			delete(open, b.Step)
		case engine.StepFinished:
			delete(open, b.Step)
			if u := b.Outcome.Agent; u != nil {
				out[b.Step] = out[b.Step].Plus(agent.Spending{Requests: u.Turns, InputTokens: u.InputTokens, OutputTokens: u.OutputTokens,
					CacheReadTokens: u.CacheReadTokens, CacheWriteTokens: u.CacheWriteTokens, CostUSD: u.CostUSD})
			}
		}
	}
	for step, s := range open {
		out[step] = out[step].Plus(s)
	}
	return out
}
