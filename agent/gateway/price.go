package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-multierror"
	"gopkg.in/yaml.v3"

	"flowrun.dev/flow/agent"
)

// Rates of a model in US dollars for a million tokens.
type Rates struct {
	Input      float64 `yaml:"input"`
	Output     float64 `yaml:"output"`
	CacheRead  float64 `yaml:"cache_read"`
	CacheWrite float64 `yaml:"cache_write"` // kept for 5 minutes
	// CacheWrite1h is for what is kept for an hour; 0 means as CacheWrite.
	CacheWrite1h float64 `yaml:"cache_write_1h"`
}

// Price of a model.
type Price struct {
	Rates `yaml:",inline"`
	// LongFrom: a prompt of more tokens than this is paid by the rates of Long, the
	// answer too; 0 for none.
	LongFrom int64  `yaml:"long_from"`
	Long     *Rates `yaml:"long"`
}

// PriceTable is by model name.
type PriceTable struct {
	// Date for which the figures were looked up, 2026-10-24.
	Date   string           `yaml:"date"`
	Models map[string]Price `yaml:"models"`
}

// Prices is the table that ships with flow: the public list prices of the API, as of
// its date. A setting replaces or adds rows (ParsePrices).
func Prices() PriceTable {
	opus := Rates{Input: 5, Output: 25, CacheRead: 0.5, CacheWrite: 6.25, CacheWrite1h: 10}
	return PriceTable{Date: "2026-10-24", Models: map[string]Price{
		"claude-opus-5-5":   {Rates: Rates{Input: 4, Output: 20, CacheRead: 0.2, CacheWrite: 5, CacheWrite1h: 8}},
		"claude-sonnet-5-5": {Rates: Rates{Input: 2, Output: 10, CacheRead: 0.1, CacheWrite: 2.5, CacheWrite1h: 4}},
		"claude-haiku-5-5": {
			Rates:    Rates{Input: 0.1, Output: 0.5, CacheRead: 0.01, CacheWrite: 0.125, CacheWrite1h: 0.2},
			LongFrom: 100_000, Long: &Rates{Input: 0.5, Output: 2.5, CacheRead: 0.05, CacheWrite: 0.625, CacheWrite1h: 1},
		},
		"claude-opus-5":     {Rates: opus},
		"claude-opus-4-8":   {Rates: opus},
		"claude-opus-4-7":   {Rates: opus},
		"claude-opus-4-6":   {Rates: opus},
		"claude-opus-4-5":   {Rates: opus},
		"claude-sonnet-5":   {Rates: Rates{Input: 2, Output: 10, CacheRead: 0.2, CacheWrite: 2.5, CacheWrite1h: 4}},
		"claude-sonnet-4-6": {Rates: Rates{Input: 3, Output: 15, CacheRead: 0.3, CacheWrite: 3.75, CacheWrite1h: 6}},
		"claude-sonnet-4-5": {Rates: Rates{Input: 3, Output: 15, CacheRead: 0.3, CacheWrite: 3.75, CacheWrite1h: 6}},
		"claude-haiku-4-5":  {Rates: Rates{Input: 1, Output: 5, CacheRead: 0.1, CacheWrite: 1.25, CacheWrite1h: 2}},
	}}
}

var dateForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`) })

// ParsePrices reads a table of prices (YAML: date, models) and lays it over base. The
// error holds all mistakes.
func ParsePrices(name string, text []byte, base PriceTable) (PriceTable, error) {
	var t PriceTable
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&t); err != nil && !errors.Is(err, io.EOF) {
		return base, fmt.Errorf("parse prices %s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var errs *multierror.Error
	if !dateForm().MatchString(t.Date) {
		errs = multierror.Append(errs, fmt.Errorf("parse prices %s: date is %q; expected the day of the figures, like 2026-10-24", name, t.Date))
	}
	out := PriceTable{Date: t.Date, Models: map[string]Price{}}
	for model, p := range base.Models {
		out.Models[model] = p
	}
	for model, p := range t.Models {
		rates := []float64{p.Input, p.Output, p.CacheRead, p.CacheWrite, p.CacheWrite1h}
		if p.Long != nil {
			rates = append(rates, p.Long.Input, p.Long.Output, p.Long.CacheRead, p.Long.CacheWrite, p.Long.CacheWrite1h)
		}
		if slices.ContainsFunc(rates, func(v float64) bool { return v < 0 }) {
			errs = multierror.Append(errs, fmt.Errorf("parse prices %s: model %s: a price is negative", name, model))
		}
		if (p.Long == nil) != (p.LongFrom == 0) {
			errs = multierror.Append(errs, fmt.Errorf("parse prices %s: model %s: long and long_from go together", name, model))
		}
		out.Models[model] = p
	}
	return out, errs.ErrorOrNil()
}

// dated is the end of a model's name that does not change its price: a date, or the
// mark of a long context window.
var dated = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(-\d{8}|-latest)?(\[1m\])?$`) })

// Of finds a model's price; a date at the name's end does not matter.
func (t PriceTable) Of(model string) (Price, bool) {
	if p, ok := t.Models[model]; ok {
		return p, true
	}
	p, ok := t.Models[dated().ReplaceAllString(model, "")]
	return p, ok
}

// cost of one answer.
func (p Price) cost(s agent.Spending, write1h int64) float64 {
	r := p.Rates
	if p.Long != nil && s.InputTokens+s.CacheReadTokens+s.CacheWriteTokens > p.LongFrom {
		r = *p.Long
	}
	hour := r.CacheWrite1h
	if hour == 0 {
		hour = r.CacheWrite
	}
	const million = 1e6
	return (float64(s.InputTokens)*r.Input + float64(s.OutputTokens)*r.Output + float64(s.CacheReadTokens)*r.CacheRead +
		float64(s.CacheWriteTokens-write1h)*r.CacheWrite + float64(write1h)*hour) / million
}
