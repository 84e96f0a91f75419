package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
)

func cmdLogs(a *app) *cobra.Command {
	var follow, raw bool
	c := &cobra.Command{
		Use: "logs [RUN] [STEP]", Short: "Print the output of a run's steps",
		Long:    "Prints the output of a run's steps, in the order in which they began; with STEP of\nits last attempt only." + exitHelp(0, 2, 3),
		Example: "  flow logs\n  flow logs latest test --raw\n  flow logs latest -f", Args: atMost(2, "a run and a step"),
		RunE: func(cmd *cobra.Command, args []string) error {
			step := ""
			if len(args) == 2 {
				step = args[1]
			}
			return a.logs(cmd.Context(), first(append(args, "latest")...), step, follow, raw)
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the run ends")
	c.Flags().BoolVar(&raw, "raw", false, "stdout of the step as it is, without step names")
	return c
}

func (a *app) logs(ctx context.Context, word, step string, follow, raw bool) error {
	store, id, err := a.found(ctx, word)
	if err != nil {
		return err
	}
	defer store.Close()
	p := &logPrinter{a: a, store: store, run: id, raw: raw, open: map[string]*openLog{}}
	defer p.close()
	if !follow {
		n, err := p.round(ctx, step)
		if err == nil && n == 0 && step != "" {
			return &usageError{msg: fmt.Sprintf("step %s of run %s did not run", step, id)}
		}
		return errors.Join(err, p.flushAll())
	}
	w, err := store.Follow(id)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		// Asked before the logs are read: nothing is written after the end.
		info, err := store.Run(ctx, id)
		if err != nil {
			return err
		}
		if _, err := p.round(ctx, step); err != nil || info.Status != engine.RunRunning {
			return errors.Join(err, p.flushAll())
		}
		if err := w.Wait(ctx); err != nil {
			return err
		}
	}
}

// pick takes all attempts, or the last one of a step.
func pick(records []state.Record, step string) []state.Record {
	if step == "" {
		return records
	}
	var out []state.Record
	for _, r := range records {
		if r.Step == step {
			out = []state.Record{r}
		}
	}
	return out
}

// logPrinter prints each record of a run's logs once, as lines.
type logPrinter struct {
	a     *app
	store *state.Store
	run   string
	raw   bool
	open  map[string]*openLog // step/attempt
}

// openLog is a log that was begun. Its reader stays open until the attempt has
// ended: the file can be read to its end even when it became a row meanwhile.
type openLog struct {
	rec  state.Record
	rd   *state.LogReader // nil when all is printed
	rest map[state.Stream][]byte
	at   time.Time
}

func (p *logPrinter) close() {
	for _, l := range p.open {
		if l.rd != nil {
			l.rd.Close()
		}
	}
}

// round prints what is new, and reports how many attempts there are.
func (p *logPrinter) round(ctx context.Context, step string) (int, error) {
	records, err := p.store.Records(ctx, p.run)
	if err != nil {
		return 0, err
	}
	picked := pick(records, step)
	for _, r := range picked {
		if err := p.log(ctx, r); err != nil {
			return 0, err
		}
	}
	return len(picked), nil
}

func (p *logPrinter) log(ctx context.Context, r state.Record) error {
	key := fmt.Sprintf("%s/%d", r.Step, r.Attempt)
	l := p.open[key]
	if l == nil {
		rd, err := p.store.OpenLogReader(ctx, state.LogRef(p.run, r.Step, r.Attempt))
		if errors.Is(err, state.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		l = &openLog{rec: r, rd: rd, rest: map[state.Stream][]byte{}}
		p.open[key] = l
	}
	for l.rd != nil {
		rec, err := l.rd.Next()
		if errors.Is(err, io.EOF) {
			if r.Outcome.Status == engine.StepRunning {
				return nil
			}
			err = errors.Join(p.flush(l), l.rd.Close())
			l.rd = nil
			return err
		}
		if err != nil {
			return err
		}
		if err := p.print(r, l, rec); err != nil {
			return err
		}
	}
	return nil
}

// print shows the whole lines of a record; its last, half one waits for the rest.
func (p *logPrinter) print(r state.Record, l *openLog, rec state.LogRecord) error {
	if p.raw {
		if rec.Stream == state.Stdout {
			_, err := p.a.out.Write(rec.Data)
			return err
		}
		return nil
	}
	l.at = rec.At
	text := append(l.rest[rec.Stream], rec.Data...)
	cut := strings.LastIndexByte(string(text), '\n') + 1
	l.rest[rec.Stream] = slices.Clone(text[cut:])
	return p.lines(r, rec.Stream, rec.At, string(text[:cut]))
}

// flush shows last lines that have no end.
func (p *logPrinter) flush(l *openLog) error {
	var errs []error
	for _, stream := range []state.Stream{state.Stdout, state.Stderr} {
		errs = append(errs, p.lines(l.rec, stream, l.at, string(l.rest[stream])))
		delete(l.rest, stream)
	}
	return errors.Join(errs...)
}

// flushAll is for attempts that nobody ended: their process is dead.
func (p *logPrinter) flushAll() error {
	var errs []error
	for _, l := range p.open {
		errs = append(errs, p.flush(l))
	}
	return errors.Join(errs...)
}

func (p *logPrinter) lines(r state.Record, stream state.Stream, at time.Time, text string) error {
	word := "stdout"
	if stream == state.Stderr {
		word = "stderr"
	}
	st := p.a.style()
	st.Width = 0
	for line := range strings.Lines(text) {
		l := report.LogLine{Step: r.Step, Attempt: r.Attempt, Stream: word, At: at, Text: strings.TrimRight(line, "\n")}
		if p.a.json {
			if err := report.WriteJSON(p.a.out, l); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintln(p.a.out, l.Format(st, true)); err != nil {
			return err
		}
	}
	return nil
}
