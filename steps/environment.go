package steps

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/engine"
	"flowrun.dev/flow/sandbox"
)

// environment is the whole environment of a step: what the sandbox needs, XDG_CACHE_HOME, the
// file's `env`, what earlier steps set ($FLOW_ENV), the step's `env`, the secrets that it
// names, and FLOW_*. Later ones win.
func (h *Host) environment(sb sandbox.Sandbox, a engine.Attempt) ([]string, error) {
	e := newEnviron(sb.BaseEnv())
	if dir := cacheDir(e.list); dir != "" {
		e.set("XDG_CACHE_HOME", dir)
	}
	var errs *multierror.Error
	for i, v := range a.Step.Env {
		if i == a.Step.FileEnv {
			errs = multierror.Append(errs, exported(e, sb, a.Exports))
		}
		s, err := v.Value.EvalString(a.Vars)
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("evaluate env %s: %w", v.Name, err))
			continue
		}
		if strings.ContainsRune(s, 0) {
			errs = multierror.Append(errs, fmt.Errorf("evaluate env %s: the value holds a NUL byte", v.Name))
			continue
		}
		e.set(v.Name, s)
	}
	if len(a.Step.Env) <= a.Step.FileEnv {
		errs = multierror.Append(errs, exported(e, sb, a.Exports))
	}
	prepended(e, sb, a.Exports)
	for _, name := range a.Step.Secrets {
		value, ok := h.secretFor(sb, name)
		if !ok {
			errs = multierror.Append(errs, fmt.Errorf("secret %s has no value", name))
			continue
		}
		e.set(name, value)
	}
	e.set("FLOW", "true")
	e.set("FLOW_RUN_ID", h.cfg.RunID)
	e.set("FLOW_STEP_ID", a.Step.ID)
	e.set("FLOW_ATTEMPT", strconv.Itoa(a.Attempt))
	for _, c := range channelsOf(a.Step) {
		e.set(c.variable, c.inside(sb, a))
	}
	return e.list, errs.ErrorOrNil()
}

// environ keeps one value a name, in order.
type environ struct {
	list  []string
	index map[string]int
}

func newEnviron(base []string) *environ {
	e := &environ{list: make([]string, 0, len(base)+8), index: make(map[string]int, len(base)+8)}
	for _, kv := range base {
		k, v, _ := strings.Cut(kv, "=")
		e.set(k, v)
	}
	return e
}

func (e *environ) set(name, value string) {
	kv := name + "=" + value
	if i, ok := e.index[name]; ok {
		e.list[i] = kv
		return
	}
	e.index[name] = len(e.list)
	e.list = append(e.list, kv)
}

// get returns a value, "" when it is not set.
func (e *environ) get(name string) string {
	i, ok := e.index[name]
	if !ok {
		return ""
	}
	return e.list[i][len(name)+1:]
}
