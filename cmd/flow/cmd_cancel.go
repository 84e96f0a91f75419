package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
)

func cmdCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "cancel RUN", Short: "Stop a run of another process",
		Long: "Asks the process that runs it to stop: steps end, finally runs, the run is\n" +
			"cancelled. Asked again, finally ends as well. The process sees it within a\n" +
			"second. A run that waits for a person has no process: it is taken up, finally runs,\n" +
			"and it is cancelled. RUN is an id, a prefix of one, or latest." + exitHelp(0, 2, 3),
		Example: "  flow cancel k7m2\n  flow cancel latest", Args: exactly(1, "one run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			look, id, err := a.found(ctx, args[0])
			if err != nil {
				return err
			}
			info, err := look.Run(ctx, id)
			look.Close()
			if err != nil {
				return err
			}
			if info.Status == engine.RunWaiting {
				return a.cancelWaiting(ctx, id)
			}
			if info.Status != engine.RunRunning {
				// A request would be for a process that is gone: nothing would take it.
				return &usageError{msg: fmt.Sprintf("cancel run %s: it is %s, no process runs it", id, info.Status),
					hint: first(report.ContinueCommand(id, info.Status), "see `flow runs`")}
			}
			store, _, err := a.openState(ctx)
			if err != nil {
				return err
			}
			defer store.Close()
			if err := store.PutInbox(ctx, id, engine.CancelRequested{Cause: "user"}); err != nil {
				return err
			}
			if a.json {
				return report.WriteJSON(a.out, map[string]any{"run": id, "asked": true})
			}
			_, err = fmt.Fprintf(a.out, "run %s is asked to stop\n", id)
			return err
		},
	}
}

// cancelWaiting takes a run up that nobody runs, in order to end it.
func (a *app) cancelWaiting(ctx context.Context, id string) error {
	err := a.resume(ctx, id, &resumeFlags{keepSource: true, grace: 10 * time.Second, cancel: true})
	var run *runError
	if errors.As(err, &run) && run.status == engine.RunCancelled {
		return nil // as it was asked for
	}
	return err
}
