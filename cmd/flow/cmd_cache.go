package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/checkpoint/cache"
	"flowrun.dev/flow/report"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
)

// The environment of the cache of results (docs/cli.md).
const (
	envCache      = "FLOW_CACHE"        // on (default), read, off
	envCacheDir   = "FLOW_CACHE_DIR"    // default: cache/ in the state directory
	envCacheScope = "FLOW_CACHE_SCOPE"  // the trust of this run's results
	envCacheTrust = "FLOW_CACHE_TRUSTS" // other scopes whose results may be taken
)

// resultCache is the cache that a run uses.
func (a *app) resultCache(store *state.Store) (steps.Cache, error) {
	c := steps.Cache{Scope: a.env(envCacheScope)}
	switch word := a.env(envCache); word {
	case "off":
		return c, nil
	case "read":
		c.ReadOnly = true
	case "", "on":
	default:
		return c, &usageError{msg: fmt.Sprintf("%s takes on, read or off, got %q", envCache, word)}
	}
	for _, s := range strings.Split(a.env(envCacheTrust), ",") {
		if s = strings.TrimSpace(s); s != "" && s != c.Scope {
			c.Trusts = append(c.Trusts, s)
		}
	}
	dir, err := a.cacheDir(store.Dir())
	if err != nil {
		return c, err
	}
	c.Dir, err = cache.Open(dir, c.ReadOnly)
	return c, err
}

func (a *app) cacheDir(stateDir string) (string, error) {
	if dir := a.env(envCacheDir); dir != "" {
		return filepath.Abs(dir)
	}
	return filepath.Join(stateDir, "cache"), nil
}

func cmdCache(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "cache", Short: "List or remove stored results of steps",
		Long: "Steps with `cache` in the workflow file keep their results in cache/ of the state\n" +
			"directory, or in " + envCacheDir + ", which runs and machines can share. " + envCache + " is on, read or\n" +
			"off; " + envCacheScope + " keeps the results of runs of different trust apart." + exitHelp(0, 2, 3),
		Example: "  flow cache list\n  flow cache rm build\n  flow cache rm --all",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(cmdCacheList(a), cmdCacheRm(a))
	return c
}

func cmdCacheList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List stored results, the newest first", Long: "Lists stored results, the newest first." + exitHelp(0, 3),
		Example: "  flow cache list --json", Args: exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			d, err := a.openCache(true)
			if err != nil {
				return err
			}
			all, err := d.List()
			if err != nil {
				return err
			}
			rows := make([]report.CacheRow, 0, len(all))
			for _, e := range all {
				rows = append(rows, report.CacheRow{Key: e.Key, Workflow: e.Workflow, Step: e.Step, Run: e.Run, At: e.At,
					Scope: e.Parts[cache.PartScope], Files: len(e.Changes), Bytes: e.Bytes})
			}
			if a.json {
				return report.WriteJSON(a.out, rows)
			}
			return report.CacheTable(a.out, rows, a.style())
		},
	}
}

func cmdCacheRm(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "rm [STEP|KEY]...", Short: "Remove stored results", Long: "Removes the results of the named steps, or with the named keys (a prefix is enough)." + exitHelp(0, 2, 3),
		Example: "  flow cache rm build\n  flow cache rm 3f9a\n  flow cache rm --all",
		RunE: func(_ *cobra.Command, args []string) error {
			if (len(args) == 0) != all {
				return &usageError{msg: "flow cache rm takes steps or keys, or --all"}
			}
			return a.removeCached(args, all)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every result")
	return c
}

func (a *app) removeCached(words []string, all bool) error {
	d, err := a.openCache(false)
	if err != nil {
		return err
	}
	hit := map[string]bool{}
	n, freed, err := d.Remove(time.Now(), func(e *cache.Entry) bool {
		for _, w := range words {
			if e.Step == w || len(w) >= 4 && strings.HasPrefix(e.Key, w) {
				hit[w] = true
				return true
			}
		}
		return all
	})
	if err != nil {
		return err
	}
	for _, w := range words {
		if !hit[w] {
			return &usageError{msg: fmt.Sprintf("no stored result has the step or key %q", w), hint: "see `flow cache list`"}
		}
	}
	if a.json {
		return report.WriteJSON(a.out, map[string]any{"removed": n, "freed_bytes": freed})
	}
	_, err = fmt.Fprintf(a.out, "removed %d, freed %d bytes\n", n, freed)
	return err
}

// openCache opens the cache that runs here use, also when there is none yet.
func (a *app) openCache(readOnly bool) (*cache.Dir, error) {
	stateDir, err := a.stateDirFor()
	if err != nil {
		return nil, err
	}
	dir, err := a.cacheDir(stateDir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); os.IsNotExist(err) {
		readOnly = true // nothing to remove, and nothing to make
	}
	return cache.Open(dir, readOnly)
}
