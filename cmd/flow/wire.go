package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/acp"
	"flowrun.dev/flow/agent/anthropic"
	"flowrun.dev/flow/agent/claudecode"
	"flowrun.dev/flow/agent/gateway"
	replayer "flowrun.dev/flow/agent/replay"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/sandbox/host"
	"flowrun.dev/flow/sandbox/local"
	"flowrun.dev/flow/state"
	"flowrun.dev/flow/steps"
)

// drivers is the table of sandbox drivers, strongest first.
func (a *app) drivers() []sandbox.Driver {
	path := a.env("PATH")
	return []sandbox.Driver{
		local.New(local.Options{Path: path}),
		host.New(host.Options{Path: path}),
	}
}

// providers is the table of agent providers by name. The keys stay in this process.
func (a *app) providers() map[string]agent.Provider {
	gw := sync.OnceValues(a.gateway)
	cli, sought := a.claude()
	return map[string]agent.Provider{
		"anthropic":     anthropic.New(anthropic.Options{Gateway: gw}),
		claudecode.Name: claudecode.New(claudecode.Options{Path: cli, Sought: sought, Gateway: gw}),
		acp.Name:        acp.New(acp.Options{Gateway: gw}),
		"replay":        replayer.New(),
	}
}

// gateway is the way to the Messages API, with the settings of the environment.
func (a *app) gateway() (*gateway.Gateway, error) {
	prices := gateway.Prices()
	if name := a.env("FLOW_PRICES"); name != "" {
		text, err := readSmall(name, 1<<20)
		if err != nil {
			return nil, fmt.Errorf("read FLOW_PRICES: %w", err)
		}
		if prices, err = gateway.ParsePrices(name, text, prices); err != nil {
			return nil, err
		}
	}
	return gateway.New(gateway.Options{
		APIKey: a.env("ANTHROPIC_API_KEY"), AuthToken: a.env("ANTHROPIC_AUTH_TOKEN"), BaseURL: a.env("ANTHROPIC_BASE_URL"), Prices: prices,
	})
}

// clock is the time of the machine.
type clock struct{}

func (clock) Now() time.Time { return time.Now() }

func (clock) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// logs gives package steps the store's logs: the two know each other's interface
// only here.
type logs struct{ *state.Store }

func (l logs) OpenLog(run, step string, attempt int) (steps.LogWriter, error) {
	w, err := l.Store.OpenLog(run, step, attempt)
	if err != nil {
		return nil, err
	}
	return logWriter{w}, nil
}

func (l logs) Tail(ctx context.Context, ref string, s steps.Stream, limit int) ([]byte, error) {
	text, err := l.Store.Tail(ctx, ref, s == steps.Stderr, limit)
	return []byte(text), err
}

type logWriter struct{ w *state.LogWriter }

func (l logWriter) Write(s steps.Stream, p []byte) error {
	if s == steps.Stderr {
		return l.w.Write(state.Stderr, p)
	}
	return l.w.Write(state.Stdout, p)
}

func (l logWriter) Finish() (string, error) { return l.w.Finish() }
