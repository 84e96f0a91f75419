package agent

import (
	"fmt"
	"strings"
	"sync"
)

// Budget bounds what conversations may spend; a zero field is no bound.
type Budget struct {
	CostUSD float64
	// Tokens counts all that a model takes and gives: input, what its cache reads
	// and writes, and output.
	Tokens int64
	// Turns are answers of a model.
	Turns int
}

// Spending is what answers took.
type Spending struct {
	Requests         int     `json:"requests,omitempty"`
	InputTokens      int64   `json:"input_tokens,omitempty"`
	OutputTokens     int64   `json:"output_tokens,omitempty"`
	CacheReadTokens  int64   `json:"cache_read_tokens,omitempty"`
	CacheWriteTokens int64   `json:"cache_write_tokens,omitempty"`
	CostUSD          float64 `json:"cost_usd,omitempty"`
	// CostUnknown: an answer came from a model without a price; CostUSD lacks it.
	CostUnknown bool `json:"cost_unknown,omitempty"`
}

// Tokens is the sum that Budget.Tokens bounds.
func (s Spending) Tokens() int64 {
	return s.InputTokens + s.OutputTokens + s.CacheReadTokens + s.CacheWriteTokens
}

// Plus is the sum of both.
func (s Spending) Plus(o Spending) Spending {
	return Spending{
		Requests: s.Requests + o.Requests, InputTokens: s.InputTokens + o.InputTokens, OutputTokens: s.OutputTokens + o.OutputTokens,
		CacheReadTokens: s.CacheReadTokens + o.CacheReadTokens, CacheWriteTokens: s.CacheWriteTokens + o.CacheWriteTokens,
		CostUSD: s.CostUSD + o.CostUSD, CostUnknown: s.CostUnknown || o.CostUnknown,
	}
}

// Minus is the difference: what came since o.
func (s Spending) Minus(o Spending) Spending {
	return Spending{
		Requests: s.Requests - o.Requests, InputTokens: s.InputTokens - o.InputTokens, OutputTokens: s.OutputTokens - o.OutputTokens,
		CacheReadTokens: s.CacheReadTokens - o.CacheReadTokens, CacheWriteTokens: s.CacheWriteTokens - o.CacheWriteTokens,
		CostUSD: s.CostUSD - o.CostUSD, CostUnknown: s.CostUnknown,
	}
}

// Account is what was spent of one budget, and of those above it (a step's account
// lies below its run's). It refuses the next request once something is spent, so
// that a budget is passed by at most one answer for each request in flight. Safe
// for several goroutines; a nil Account bounds nothing.
type Account struct {
	name   string // for messages: "step implement", "the run"
	budget Budget
	parent *Account

	mu    sync.Mutex
	spent Spending
}

// NewAccount returns an account that has spent already (earlier attempts). parent
// may be nil.
func NewAccount(name string, b Budget, spent Spending, parent *Account) *Account {
	return &Account{name: name, budget: b, spent: spent, parent: parent}
}

// Spent so far.
func (a *Account) Spent() Spending {
	if a == nil {
		return Spending{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spent
}

// Add counts an answer, here and above.
func (a *Account) Add(s Spending) {
	for ; a != nil; a = a.parent {
		a.mu.Lock()
		a.spent = a.spent.Plus(s)
		a.mu.Unlock()
	}
}

// BoundsCost says whether a budget in US dollars holds, here or above: then every
// answer needs a price.
func (a *Account) BoundsCost() bool {
	for ; a != nil; a = a.parent {
		if a.budget.CostUSD > 0 {
			return true
		}
	}
	return false
}

// Refusal is why the next request must not be made: an *Error of class budget, nil
// while something is left of every budget. It says by how much one was passed.
func (a *Account) Refusal() *Error {
	for ; a != nil; a = a.parent {
		s, b := a.Spent(), a.budget
		var over []string
		if b.CostUSD > 0 && s.CostUSD >= b.CostUSD {
			over = append(over, fmt.Sprintf("cost_usd: %.4f of %.4f (passed by %.4f)", s.CostUSD, b.CostUSD, s.CostUSD-b.CostUSD))
		}
		if b.Tokens > 0 && s.Tokens() >= b.Tokens {
			over = append(over, fmt.Sprintf("tokens: %d of %d (passed by %d)", s.Tokens(), b.Tokens, s.Tokens()-b.Tokens))
		}
		if b.Turns > 0 && s.Requests >= b.Turns {
			over = append(over, fmt.Sprintf("turns: %d of %d", s.Requests, b.Turns))
		}
		if len(over) > 0 {
			return &Error{Class: ClassBudget, Err: fmt.Errorf("the budget of %s is spent: %s", a.name, strings.Join(over, ", ")),
				Hint: "raise the budget in the file, then `flow resume --accept-changes`"}
		}
	}
	return nil
}
