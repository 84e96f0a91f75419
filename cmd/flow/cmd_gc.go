package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/checkpoint/cache"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/sandbox/local"
	"flowrun.dev/flow/state"
)

type gcFlags struct {
	olderThan, maxSize string
	keep               int
	dryRun             bool
}

func cmdGC(a *app) *cobra.Command {
	f := &gcFlags{}
	c := &cobra.Command{
		Use: "gc", Short: "Remove old runs, and what no run needs",
		Long: "Removes runs by age, number and size, then the stored contents that no run needs\n" +
			"any more, and what killed runs left. Pinned and living runs stay. With --older-than,\n" +
			"results in the cache that are older go too. Without a bound no run is removed." + exitHelp(0, 2, 3),
		Example: "  flow gc\n  flow gc --older-than 30d --keep 20\n  flow gc --max-size 5GiB --dry-run",
		Args:    exactly(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.collect(cmd.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.olderThan, "older-than", "", "remove runs whose last event is older: 30d, 12h")
	fl.IntVar(&f.keep, "keep", -1, "leave this many of the newest runs, remove the others")
	fl.StringVar(&f.maxSize, "max-size", "", "remove the oldest runs until the state takes no more: 500MiB, 5GiB")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say which runs would go by age and number; remove nothing")
	return c
}

func (a *app) collect(ctx context.Context, f *gcFlags) error {
	g := state.GC{Keep: f.keep, DryRun: f.dryRun}
	var err error
	if g.OlderThan, err = age(f.olderThan); err != nil {
		return &usageError{msg: "--older-than: " + err.Error()}
	}
	if g.MaxBytes, err = bytesOf(f.maxSize); err != nil {
		return &usageError{msg: "--max-size: " + err.Error()}
	}
	if f.keep < -1 {
		return &usageError{msg: "--keep takes a number of runs"}
	}
	var swept []string
	if !f.dryRun {
		swept = local.Sweep()
	}
	if look, err := a.readState(); err != nil {
		return err
	} else if look == nil { // nothing ran here yet: no directory to make
		return a.saySwept(swept)
	} else {
		look.Close()
	}
	store, _, err := a.openState(ctx)
	if err != nil {
		return err
	}
	defer store.Close()
	out, err := store.Collect(ctx, g)
	if err != nil {
		return err
	}
	results, freed, err := a.collectCache(g)
	if err != nil {
		return err
	}
	if a.json {
		return report.WriteJSON(a.out, map[string]any{"runs": orEmpty(out.Runs), "kept": orEmpty(out.Kept), "contents": out.Contents,
			"freed_bytes": out.Freed + freed, "leftovers": orEmpty(swept), "busy": out.Busy, "cached_results": results, "dry_run": f.dryRun})
	}
	if err := a.saySwept(swept); err != nil {
		return err
	}
	verb := "removed"
	if f.dryRun {
		verb = "would be removed:"
	}
	for _, id := range out.Runs {
		fmt.Fprintf(a.out, "%s run %s\n", verb, id)
	}
	for _, id := range out.Kept {
		fmt.Fprintf(a.out, "kept run %s: it is pinned or alive\n", id)
	}
	if out.Busy {
		fmt.Fprintln(a.err, "flow: another flow is writing here; contents that no run needs are left for the next gc")
	}
	if f.dryRun {
		return nil
	}
	_, err = fmt.Fprintf(a.out, "%d runs, %d contents, %d cached results removed; %d bytes freed\n", len(out.Runs), out.Contents, results, out.Freed+freed)
	return err
}

// saySwept tells what killed processes had left on the machine.
func (a *app) saySwept(paths []string) error {
	if a.json {
		return nil
	}
	for _, path := range paths {
		if _, err := fmt.Fprintf(a.out, "removed %s, which a killed flow left\n", path); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) collectCache(g state.GC) (n int, freed int64, err error) {
	if g.DryRun {
		return 0, 0, nil
	}
	d, err := a.openCache(false)
	if err != nil {
		return 0, 0, err
	}
	now := time.Now()
	return d.Remove(now, func(e *cache.Entry) bool { return g.OlderThan > 0 && now.Sub(e.At) > g.OlderThan })
}

// age reads a duration that may be given in days.
func age(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 1 || n > 36500 {
			return 0, fmt.Errorf("%q is no number of days", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no duration such as 30d or 12h", text)
	}
	return d, nil
}

// bytesOf reads a size such as 500MiB.
func bytesOf(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	for _, u := range []struct {
		unit string
		n    int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}} {
		if num, ok := strings.CutSuffix(text, u.unit); ok {
			n, err := strconv.ParseInt(num, 10, 32)
			if err != nil || n < 1 {
				break
			}
			return n * u.n, nil
		}
	}
	return 0, fmt.Errorf("%q is no size such as 500MiB or 5GiB", text)
}

func cmdPin(a *app) *cobra.Command {
	var off bool
	c := &cobra.Command{
		Use: "pin RUN", Short: "Keep a run from gc", Long: "Keeps a run from being removed by flow gc, or lets it go again." + exitHelp(0, 2, 3),
		Example: "  flow pin k7m2\n  flow pin k7m2 --off", Args: exactly(1, "one run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, id, err := a.foundToWrite(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer store.Close()
			if err := store.Pin(cmd.Context(), id, !off); err != nil {
				return err
			}
			word := "pinned"
			if off {
				word = "not pinned any more"
			}
			_, err = fmt.Fprintf(a.out, "run %s is %s\n", id, word)
			return err
		},
	}
	c.Flags().BoolVar(&off, "off", false, "let gc remove it again")
	return c
}
