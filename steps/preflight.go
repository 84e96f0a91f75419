package steps

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Preflight refuses a workflow that asks for what its drivers cannot do on this
// machine, all such wishes at once: the error is a *sandbox.Error of class invalid,
// nil when there are none. caps are those of the run's sandbox (""), and of the named
// ones. It is about the machine; the file itself was judged by package workflow, with
// the same verdict everywhere.
func Preflight(w *workflow.Workflow, caps map[string]sandbox.Capabilities) error {
	var errs *multierror.Error
	for _, spec := range append([]*workflow.SandboxSpec{&w.Sandbox}, w.Sandboxes...) {
		v := &wishes{w: w, spec: spec, caps: caps[spec.Name]}
		for _, s := range allSteps(w) {
			if w.SandboxOf(s) == spec {
				v.steps = append(v.steps, s)
			}
		}
		if spec.Name != "" && len(v.steps) == 0 {
			continue // it is never made
		}
		for _, check := range preflightChecks {
			if err := check(v); err != nil {
				errs = multierror.Append(errs, err)
			}
		}
	}
	if errs == nil {
		return nil
	}
	return &sandbox.Error{Op: "check what this machine can do", Class: sandbox.ClassInvalid, Err: errs.ErrorOrNil(),
		Hint: "`flow doctor` says what isolation this machine gives, and what would lift it."}
}

// wishes are what a file asks of one kind of sandbox.
type wishes struct {
	w     *workflow.Workflow
	spec  *workflow.SandboxSpec
	steps []*workflow.Step // that run in it
	caps  sandbox.Capabilities
}

// key is a key of the sandbox as the file spells it.
func (v *wishes) key(name string) string {
	if v.spec.Name == "" {
		return "sandbox." + name
	}
	return "sandboxes." + v.spec.Name + "." + name
}

// preflightChecks is the table of what a file can ask for beyond its language.
var preflightChecks = [...]func(*wishes) error{
	checkTier,
	checkNoNetwork,
	checkCache,
	checkAllowLists,
	checkMixedNetworks,
	checkLimits,
	checkHandOver,
	checkInPlace,
	checkBackground,
	checkMounts,
}

func checkTier(v *wishes) error {
	if v.spec.Require != "strong" || v.caps.Tier.Strong() {
		return nil
	}
	err := fmt.Errorf("%s is strong, and driver %s gives tier %s here", v.key("require"), v.caps.Driver, v.caps.Tier)
	if v.caps.Reason != "" {
		err = fmt.Errorf("%w (%s)", err, v.caps.Reason)
	}
	return err
}

// checkNoNetwork: a file that says nothing runs on driver host too, which its
// author chose by name; one that says `none` meant it.
func checkNoNetwork(v *wishes) error {
	if v.caps.NoNetwork {
		return nil
	}
	if v.spec.Network.Mode == workflow.NetworkNone {
		return errors.New(v.key("network") + " is none, and driver " + v.caps.Driver + " cannot keep steps from the network")
	}
	if s := stepWith(v.steps, workflow.NetworkNone); s != nil {
		return fmt.Errorf("step %s has network none, and driver %s cannot keep steps from the network", s.ID, v.caps.Driver)
	}
	return nil
}

func checkAllowLists(v *wishes) error {
	if s := stepWith(v.steps, workflow.NetworkAllow); s != nil && !v.caps.EgressList {
		return fmt.Errorf("step %s has a list of hosts (network), to which driver %s (tier %s) cannot hold it here", s.ID, v.caps.Driver, v.caps.Tier)
	}
	return nil
}

// checkMixedNetworks: a sandbox has one network. Where one step has the host's, others
// are kept from it by refusing them sockets; a list of hosts would not hold there.
func checkMixedNetworks(v *wishes) error {
	full := stepWith(v.steps, workflow.NetworkFull)
	if full == nil {
		return nil
	}
	if list := stepWith(v.steps, workflow.NetworkAllow); list != nil {
		return fmt.Errorf("step %s has network full and step %s a list of hosts: both in one sandbox is not supported yet; give one of them another sandbox (`sandboxes`)", full.ID, list.ID)
	}
	if v.caps.SocketRights || v.caps.Tier == sandbox.TierNone {
		return nil
	}
	for _, s := range v.steps {
		if s.Network.Mode != workflow.NetworkFull {
			return fmt.Errorf("step %s has network full and step %s none, and driver %s (tier %s) cannot hold both to it here", full.ID, s.ID, v.caps.Driver, v.caps.Tier)
		}
	}
	return nil
}

// checkHandOver: another sandbox than the run's gets the tree, and gives it back.
func checkHandOver(v *wishes) error {
	if v.caps.Forks {
		return nil
	}
	if v.spec.Name != "" || v.spec.Reuse == workflow.ReuseStep || v.spec.Reuse == workflow.ReusePool {
		return fmt.Errorf("%s: driver %s cannot hand the workspace over to another sandbox", v.key("reuse"), v.caps.Driver)
	}
	for _, s := range v.steps {
		if s.Sandbox == workflow.Fresh {
			return fmt.Errorf("step %s has sandbox fresh, and driver %s cannot hand the workspace over to another sandbox", s.ID, v.caps.Driver)
		}
	}
	return nil
}

// allSteps are those that run something, in groups too.
func allSteps(w *workflow.Workflow) (all []*workflow.Step) {
	w.Walk(func(s *workflow.Step) {
		if s.Kind != workflow.KindGroup && s.Kind != workflow.KindApprove {
			all = append(all, s)
		}
	})
	return all
}

func stepWith(list []*workflow.Step, mode string) *workflow.Step {
	for _, s := range list {
		if s.Network.Mode == mode {
			return s
		}
	}
	return nil
}

// checkCache: what a step changed is only known, and can only be taken back, where no
// other one works on the same tree (design: language, Steps that overlap).
func checkCache(v *wishes) error {
	if v.caps.Forks || v.w.MaxParallel == 1 {
		return nil
	}
	var errs *multierror.Error
	overlapping(workflow.BuildPlan(v.w).Nodes, true, func(s *workflow.Step) {
		if asks := asksForItsOwnTree(s); asks != "" && v.w.SandboxOf(s) == v.spec {
			errs = multierror.Append(errs, fmt.Errorf("step %s has %s and may run beside other steps, and driver %s cannot give each a fork of the workspace: order them with needs, or set max_parallel: 1",
				s.ID, asks, v.caps.Driver))
		}
	})
	return errs.ErrorOrNil()
}

// checkInPlace: the steps work in one tree that nothing puts back, so one at a time, on
// a driver that can, and none of them is held to rights by putting back.
func checkInPlace(v *wishes) error {
	if !v.w.Workspace.InPlace || v.spec.Name != "" {
		return nil
	}
	if !v.caps.InPlace {
		return fmt.Errorf("workspace.in_place: driver %s cannot work in a folder of this machine; only driver host can", v.caps.Driver)
	}
	var errs *multierror.Error
	if v.w.MaxParallel != 1 {
		overlapping(workflow.BuildPlan(v.w).Nodes, true, func(s *workflow.Step) {
			errs = multierror.Append(errs, fmt.Errorf("step %s may run beside other steps, and workspace.in_place has no forks of the workspace: order them with needs, or set max_parallel: 1", s.ID))
		})
	}
	for _, s := range v.steps {
		if s.Agent == nil {
			continue
		}
		policy, err := agent.NewPolicy(s.Agent.AllowedTools, s.Agent.DisallowedTools)
		if err == nil && policy.Rights().ReadOnly && !v.caps.PathRights {
			errs = multierror.Append(errs, fmt.Errorf("step %s: what its allowed_tools do not allow to change is put back on driver %s, and workspace.in_place puts nothing back: allow Write or Edit, or work on a copy", s.ID, v.caps.Driver))
		}
	}
	return errs.ErrorOrNil()
}

// overlapping calls f for each step that may run beside another one.
func overlapping(nodes []workflow.Node, alone bool, f func(*workflow.Step)) {
	for i := range nodes {
		n := &nodes[i]
		alone := alone && n.Alone
		if each := n.Step.Foreach; n.Role == workflow.RoleForeach && each.MaxParallel != 1 {
			overlapping(n.Body, false, f)
			continue
		}
		if n.Role != workflow.RoleStep {
			overlapping(n.Body, alone, f)
		} else if !alone {
			f(n.Step)
		}
	}
}

// asksForItsOwnTree is the key of a step that needs its changes known apart, "" for none.
func asksForItsOwnTree(s *workflow.Step) string {
	switch {
	case s.Cache != nil:
		return "cache"
	case s.Retry.Restore:
		return "retry.workspace: restore"
	}
	return ""
}

// checkLimits names all limits that cannot be enforced.
func checkLimits(v *wishes) error {
	var missing []string
	for _, name := range limits(v.spec.Limits).Asked() {
		if !slices.Contains(v.caps.Limits, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s: driver %s (tier %s) cannot enforce %s on this machine", v.key("limits"), v.caps.Driver, v.caps.Tier, strings.Join(missing, ", "))
}
