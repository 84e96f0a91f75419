package steps

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"flowrun.dev/flow/sandbox"
	"flowrun.dev/flow/workflow"
)

// Preflight refuses a workflow that asks for what a driver cannot do on this
// machine, all such wishes at once: the error is a *sandbox.Error of class invalid,
// nil when there are none. It is about the machine; the file itself was judged by
// package workflow, with the same verdict everywhere.
func Preflight(w *workflow.Workflow, caps sandbox.Capabilities) error {
	var errs *multierror.Error
	for _, check := range preflightChecks {
		if err := check(w, caps); err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	if errs == nil {
		return nil
	}
	return &sandbox.Error{Op: "check what this machine can do", Class: sandbox.ClassInvalid, Err: errs.ErrorOrNil(),
		Hint: "`flow doctor` says what isolation this machine gives, and what would lift it."}
}

// preflightChecks is the table of what a file can ask for beyond its language.
var preflightChecks = [...]func(*workflow.Workflow, sandbox.Capabilities) error{
	checkTier,
	checkNoNetwork,
	checkCache,
	checkAllowLists,
	checkMixedNetworks,
	checkLimits,
}

func checkTier(w *workflow.Workflow, caps sandbox.Capabilities) error {
	if w.Sandbox.Require != "strong" || caps.Tier.Strong() {
		return nil
	}
	err := fmt.Errorf("sandbox.require is strong, and driver %s gives tier %s here", caps.Driver, caps.Tier)
	if caps.Reason != "" {
		err = fmt.Errorf("%w (%s)", err, caps.Reason)
	}
	return err
}

// checkNoNetwork: a file that says nothing runs on driver host too, which its
// author chose by name; one that says `none` meant it.
func checkNoNetwork(w *workflow.Workflow, caps sandbox.Capabilities) error {
	if caps.NoNetwork {
		return nil
	}
	if w.Sandbox.Network.Mode == workflow.NetworkNone {
		return errors.New("sandbox.network is none, and driver " + caps.Driver + " cannot keep steps from the network")
	}
	for _, s := range allSteps(w) {
		if s.Network.Mode == workflow.NetworkNone {
			return fmt.Errorf("step %s has network none, and driver %s cannot keep steps from the network", s.ID, caps.Driver)
		}
	}
	return nil
}

func checkAllowLists(w *workflow.Workflow, caps sandbox.Capabilities) error {
	for _, s := range allSteps(w) {
		if s.Network.Mode == workflow.NetworkAllow && !caps.EgressList {
			return fmt.Errorf("step %s has a list of hosts (network), to which driver %s (tier %s) cannot hold it here", s.ID, caps.Driver, caps.Tier)
		}
	}
	return nil
}

// checkMixedNetworks: a sandbox has one network. Where one step has the host's, others
// are kept from it by refusing them sockets; a list of hosts would not hold there.
func checkMixedNetworks(w *workflow.Workflow, caps sandbox.Capabilities) error {
	full := stepWith(w, workflow.NetworkFull)
	if full == nil {
		return nil
	}
	if list := stepWith(w, workflow.NetworkAllow); list != nil {
		return fmt.Errorf("step %s has network full and step %s a list of hosts: both in one run is not supported yet", full.ID, list.ID)
	}
	if caps.SocketRights || caps.Tier == sandbox.TierNone {
		return nil
	}
	for _, s := range allSteps(w) {
		if s.Network.Mode != workflow.NetworkFull {
			return fmt.Errorf("step %s has network full and step %s none, and driver %s (tier %s) cannot hold both to it here", full.ID, s.ID, caps.Driver, caps.Tier)
		}
	}
	return nil
}

// allSteps are those that run something, in groups too.
func allSteps(w *workflow.Workflow) (all []*workflow.Step) {
	w.Walk(func(s *workflow.Step) {
		if s.Kind != workflow.KindGroup {
			all = append(all, s)
		}
	})
	return all
}

func stepWith(w *workflow.Workflow, mode string) *workflow.Step {
	for _, s := range allSteps(w) {
		if s.Network.Mode == mode {
			return s
		}
	}
	return nil
}

// checkCache: what a step changed is only known where no other one works on the
// same tree (design: language, Steps that overlap).
func checkCache(w *workflow.Workflow, caps sandbox.Capabilities) error {
	if caps.Forks || w.MaxParallel == 1 {
		return nil
	}
	var errs *multierror.Error
	var look func(nodes []workflow.Node, alone bool)
	look = func(nodes []workflow.Node, alone bool) {
		for i := range nodes {
			n := &nodes[i]
			alone := alone && n.Alone
			if f := n.Step.Foreach; n.Role == workflow.RoleForeach && f.MaxParallel != 1 {
				look(n.Body, false)
				continue
			}
			if n.Role != workflow.RoleStep {
				look(n.Body, alone)
			} else if n.Step.Cache != nil && !alone {
				errs = multierror.Append(errs, fmt.Errorf("step %s has cache and may run beside other steps, and driver %s cannot give each a fork of the workspace: order them with needs, or set max_parallel: 1",
					n.Step.ID, caps.Driver))
			}
		}
	}
	look(workflow.BuildPlan(w).Nodes, true)
	return errs.ErrorOrNil()
}

// checkLimits names all limits that cannot be enforced.
func checkLimits(w *workflow.Workflow, caps sandbox.Capabilities) error {
	var missing []string
	for _, name := range limits(w.Sandbox.Limits).Asked() {
		if !slices.Contains(caps.Limits, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("sandbox.limits: driver %s (tier %s) cannot enforce %s on this machine", caps.Driver, caps.Tier, strings.Join(missing, ", "))
}
