package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/report"
)

func cmdGraph(a *app) *cobra.Command {
	format, to := "", ""
	c := &cobra.Command{
		Use: "graph FILE|RUN", Short: "Draw the steps of a file or of a run",
		Long:    "Draws the steps and what waits for what; of a run also what became of each step.\nThe SVG needs no other program to be drawn or shown." + exitHelp(0, 2, 3),
		Example: "  flow graph ci.yaml\n  flow graph ci.yaml -o ci.svg\n  flow graph latest --format mermaid",
		Args:    exactly(1, "one workflow file or run"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.graph(cmd.Context(), args[0], format, to)
		},
	}
	c.Flags().StringVar(&format, "format", "", "text, mermaid, dot or svg (default: as the name of -o ends, else text)")
	c.Flags().StringVarP(&to, "out", "o", "", "write to this file")
	return c
}

// graphFormats by the ending of a file's name.
var graphFormats = map[string]string{"svg": "svg", "dot": "dot", "gv": "dot", "mmd": "mermaid", "md": "mermaid", "txt": "text"}

func (a *app) graph(ctx context.Context, what, format, to string) error {
	if format == "" {
		format = first(graphFormats[to[strings.LastIndexByte(to, '.')+1:]], "text")
	}
	if !slices.Contains([]string{"text", "mermaid", "dot", "svg"}, format) {
		return &usageError{msg: fmt.Sprintf("there is no format %q", format), hint: "formats are text, mermaid, dot and svg"}
	}
	g, err := a.graphOf(ctx, what)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	switch format {
	case "mermaid":
		err = report.GraphMermaid(&b, g)
	case "dot":
		err = report.GraphDot(&b, g)
	case "svg":
		err = report.GraphSVG(&b, g)
	default:
		style := a.style()
		if to != "" {
			style = report.Style{Width: 120}
		}
		err = report.GraphText(&b, g, style)
	}
	if err != nil {
		return err
	}
	if to != "" {
		if err := os.WriteFile(to, b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write the graph: %w", err)
		}
		return nil
	}
	_, err = a.out.Write(b.Bytes())
	return err
}

// graphOf takes a file where one of that name exists, else a run.
func (a *app) graphOf(ctx context.Context, what string) (report.Graph, error) {
	if info, err := os.Stat(what); err == nil && !info.IsDir() || strings.HasSuffix(what, ".yaml") || strings.HasSuffix(what, ".yml") {
		plan, err := a.load(what)
		if err != nil {
			return report.Graph{}, err
		}
		return report.GraphOf(plan, nil), nil
	}
	store, id, err := a.found(ctx, what)
	if err != nil {
		return report.Graph{}, err
	}
	defer store.Close()
	past, err := replay(ctx, store, id)
	if err != nil {
		return report.Graph{}, err
	}
	info, err := store.Run(ctx, id)
	if err != nil {
		return report.Graph{}, err
	}
	statuses := map[string]engine.StepStatus{}
	plan := past.run.Plan()
	for i := range plan.Nodes {
		statuses[plan.Nodes[i].Step.ID] = past.run.Nodes[i].Status
	}
	g := report.GraphOf(plan, statuses)
	g.Note = fmt.Sprintf("run %s · %s", id, info.Status)
	return g, nil
}
