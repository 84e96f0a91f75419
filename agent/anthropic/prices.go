package anthropic

import "flowrun.dev/flow/agent"

// Price of a model in US dollars for a million tokens.
type Price struct {
	Input, Output, CacheRead, CacheWrite float64
	// Since is the day from which the figures hold, for people: 2026-10-20.
	Since string
}

// PriceTable is by model name.
type PriceTable map[string]Price

// Prices is the table that ships with flow. It is empty on purpose: no price was
// verified when this was written, and a made-up cost is worse than none. A row looks
// like
//
//	"model-name": {Input: 0, Output: 0, CacheRead: 0, CacheWrite: 0, Since: "2026-10-20"},
func Prices() PriceTable { return PriceTable{} }

// Cost of what was used; known is false, and the cost 0, for a model without a row.
func (t PriceTable) Cost(model string, u agent.Usage) (usd float64, known bool) {
	p, ok := t[model]
	if !ok {
		return 0, false
	}
	const million = 1e6
	return (float64(u.InputTokens)*p.Input + float64(u.OutputTokens)*p.Output +
		float64(u.CacheReadTokens)*p.CacheRead + float64(u.CacheWriteTokens)*p.CacheWrite) / million, true
}
