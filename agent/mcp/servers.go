package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/tools"
	"flowrun.dev/flow/sandbox"
)

const (
	// startTime bounds the start of a server, with the list of its tools.
	startTime = 30 * time.Second
	maxTools  = 256
	// maxSpec bounds the description and the input schema of a tool, in bytes.
	maxSpec = 64 << 10
	// maxMessage bounds one message of a server.
	maxMessage = 16 << 20
	// protocol is asked for; servers answer with what they speak.
	protocol = "2025-11-25"
)

// Servers are the connected servers of one conversation. Call may be used by several
// goroutines.
type Servers struct {
	policy *agent.Policy
	list   []*server
	tools  map[string]*tool // offered ones, by name
}

// server is one of them.
type server struct {
	name    string
	session *sdk.ClientSession
	// close ends what stands behind the session; words explain how it ended, "" while
	// it lives.
	close func()
	words func() string
}

type tool struct {
	*server
	inner string // the server's own name for it
	spec  tools.Spec
}

// Start connects the servers of r, all at once. The error is an *agent.Error and names
// every server that failed; nothing is left running then.
func Start(ctx context.Context, r agent.Request, policy *agent.Policy) (*Servers, error) {
	s := &Servers{policy: policy, tools: map[string]*tool{}}
	started := make([]*server, len(r.MCPServers))
	failed := make([]error, len(r.MCPServers))
	offered := make([][]*tool, len(r.MCPServers))
	var all sync.WaitGroup
	for i, m := range r.MCPServers {
		all.Go(func() { started[i], offered[i], failed[i] = start(ctx, r, m, policy) })
	}
	all.Wait()
	for i := range started {
		if started[i] != nil {
			s.list = append(s.list, started[i])
		}
		for _, t := range offered[i] {
			s.tools[t.spec.Name] = t
		}
	}
	err := joined(failed)
	if err == nil {
		err = s.complete()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// joined makes one error of several; the class is the one that would not pass.
func joined(failed []error) error {
	var out *agent.Error
	var texts []string
	for _, err := range failed {
		var ae *agent.Error
		if !errors.As(err, &ae) {
			continue
		}
		texts = append(texts, ae.Error())
		if out == nil || ae.Class == agent.ClassInvalid {
			out = ae
		}
	}
	if out == nil {
		return nil
	}
	return &agent.Error{Class: out.Class, Hint: out.Hint, Err: errors.New(strings.Join(texts, "; "))}
}

// complete refuses a rule whose tool does not exist: it would be a silent nothing.
func (s *Servers) complete() error {
	var missing []string
	for _, name := range s.policy.MCPRules() {
		if s.tools[name] == nil && s.policy.Judge(name, nil).Allow && s.started(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &agent.Error{Class: agent.ClassInvalid, Err: fmt.Errorf("offer the step's tools: no MCP server has %s", strings.Join(missing, ", ")),
		Hint: "there are " + strings.Join(s.names(), ", ")}
}

func (s *Servers) started(tool string) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(tool, agent.MCPPrefix), "__")
	return slices.ContainsFunc(s.list, func(x *server) bool { return x.name == name })
}

func (s *Servers) names() []string {
	var names []string
	for name := range s.tools {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// start connects one server and asks for its tools.
func start(ctx context.Context, r agent.Request, m agent.MCPServer, policy *agent.Policy) (*server, []*tool, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("it did not answer within %s", startTime))
	defer cancel()
	var s *server
	var err error
	if m.URL != "" {
		s, err = reach(bounded, r, m)
	} else {
		s, err = run(ctx, bounded, r, m)
	}
	if err != nil {
		return nil, nil, err
	}
	offered, err := s.list(bounded, policy)
	if err != nil {
		err = s.failure(bounded, "list the tools of", err)
		s.end()
		return nil, nil, err
	}
	return s, offered, nil
}

// connect begins the session over a transport.
func (s *server) connect(ctx context.Context, t sdk.Transport, workspace string) error {
	client := sdk.NewClient(&sdk.Implementation{Name: "flow", Version: "1"}, nil)
	//lint:ignore SA1019 servers of today ask for roots; the successor (paths in the tools' arguments) is the servers' to bring
	client.AddRoots(&sdk.Root{URI: "file://" + workspace, Name: "workspace"})
	session, err := client.Connect(ctx, t, &sdk.ClientSessionOptions{ProtocolVersion: protocol})
	s.session = session
	return err
}

// workspace is its path as programs see it.
func workspace(sb sandbox.Sandbox) string {
	if sb.Info().Tier.Strong() {
		return sandbox.WorkspaceDir
	}
	return sb.Home() + "/workspace"
}

var wild = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// list asks for the tools and keeps those that are allowed.
func (s *server) list(ctx context.Context, policy *agent.Policy) ([]*tool, error) {
	var out []*tool
	seen := map[string]bool{}
	for t, err := range s.session.Tools(ctx, nil) {
		if err != nil {
			return nil, err
		}
		name := agent.MCPPrefix + s.name + "__" + wild.ReplaceAllString(t.Name, "_")
		if len(seen) == maxTools {
			return nil, fmt.Errorf("it has more than %d tools", maxTools)
		}
		if seen[name] {
			return nil, fmt.Errorf("two of its tools are named %s", name)
		}
		seen[name] = true
		if !policy.Judge(name, nil).Allow {
			continue
		}
		schema, err := json.Marshal(t.InputSchema)
		switch {
		case err != nil:
			return nil, fmt.Errorf("its tool %s: %w", name, err)
		case len(name) > 128:
			return nil, fmt.Errorf("the name of its tool %s is longer than 128 characters", name)
		case len(schema) > maxSpec || len(t.Description) > maxSpec:
			return nil, fmt.Errorf("its tool %s has a description or an input schema of more than %d bytes", name, maxSpec)
		}
		out = append(out, &tool{server: s, inner: t.Name, spec: tools.Spec{Name: name, Description: t.Description, InputSchema: schema}})
	}
	return out, nil
}

// failure explains an error of a server: by how it ended, where it did.
func (s *server) failure(ctx context.Context, doing string, err error) *agent.Error {
	class := agent.ClassInfrastructure
	hint := "its program has to be in the sandbox, or be made by an earlier step: look at mcp_servers." + s.name
	if words := s.words(); words != "" {
		return &agent.Error{Class: agent.ClassInvalid, Hint: hint, Err: fmt.Errorf("%s the MCP server %s: %s", doing, s.name, words)}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &agent.Error{Class: class, Hint: hint, Err: fmt.Errorf("%s the MCP server %s: %w", doing, s.name, err)}
}

func (s *server) end() {
	if s.session != nil {
		_ = s.session.Close() // what it says at its end changes nothing
	}
	s.close()
}

// Close ends the servers.
func (s *Servers) Close() {
	if s == nil {
		return
	}
	var all sync.WaitGroup
	for _, x := range s.list {
		all.Go(x.end)
	}
	all.Wait()
}

// Specs are the offered tools, sorted by name. A nil Servers has none.
func (s *Servers) Specs() []tools.Spec {
	if s == nil {
		return nil
	}
	var out []tools.Spec
	for _, name := range s.names() {
		out = append(out, s.tools[name].spec)
	}
	return out
}

// Named are those of one server, with the server's own names.
func (s *Servers) Named(server string) (specs []tools.Spec) {
	for _, spec := range s.Specs() {
		if t := s.tools[spec.Name]; t.name == server {
			spec.Name = strings.TrimPrefix(spec.Name, agent.MCPPrefix+server+"__")
			specs = append(specs, spec)
		}
	}
	return specs
}
