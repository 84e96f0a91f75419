package workflow

import (
	"testing"

	"gopkg.in/yaml.v3"
)

// TestEveryKeyIsRead: each supported row of the table has a case in the parser,
// and its example and default are values that the parser takes.
func TestEveryKeyIsRead(t *testing.T) {
	t.Parallel()
	for _, k := range Keys() {
		if k.Doc == "" && k.Supported {
			t.Errorf("%s.%s has no doc", k.In, k.Name)
		}
		if k.Example == "" && k.Supported {
			t.Errorf("%s.%s has no example", k.In, k.Name)
		}
		if !k.Supported {
			continue
		}
		p := newFileParser("k.yaml", nil, ParseOptions{})
		p.ids, p.lists, p.places = map[string]int{}, []stepList{{what: "steps", n: 1, holder: -1, graph: newGraph(1)}}, make([]standing, 1)
		p.lists[0].graph.close()
		var value yaml.Node
		if err := yaml.Unmarshal([]byte(k.Name+": "+k.Example), &value); err != nil {
			t.Errorf("%s.%s: the example is not YAML: %v", k.In, k.Name, err)
			continue
		}
		n := value.Content[0]
		switch k.In {
		case inWorkflow:
			p.top(n)
		case inInput:
			p.inputs(wrapMap("i", n))
		case inSecret:
			p.secrets(wrapList(n))
		case inSandbox:
			p.sandbox(n)
		case inNamedSandbox:
			p.sandboxes(wrapMap("other", n))
		case inPool:
			p.pool(n)
		case inInject:
			p.inject(n)
		case inNetwork:
			p.network(ctxStep, &yaml.Node{Kind: yaml.ScalarNode, Value: "network"}, n)
		case inHost:
			p.allowHost(n)
		case inStepSecret:
			p.stepSecrets(&Step{}, wrapList(n))
		case inLimits:
			p.limits(n)
		case inWorkspace:
			p.workspace(n)
		case inDefaults:
			p.readDefaults(n)
		case inStep:
			p.step(n, 0)
		case inBatch, inRepeat:
			step := wrapMap(k.In, n)
			step.Content = append(step.Content, wrapMap("foreach", wrapList(wrapMap("a", n))).Content...)
			p.step(step, 0)
		case inMCP:
			p.mcpServers(wrapMap("s", n), p.stepScope(0))
		case inBudget:
			p.budget(n)
		case inLint:
			p.lint(n)
		case inLintOff:
			p.lintRow(n)
		case inRetry:
			p.retry(n)
		case inNeeds:
			p.join(n, 0)
		case inCache:
			p.cache(n, p.stepScope(0))
		case inConcurrency:
			p.concurrency(n)
		case inMount:
			p.mounts(wrapList(n))
		case inReady:
			p.ready(n, p.stepScope(0))
		case inApprove:
			p.approve(n, p.stepScope(0))
		case inAgent:
			p.agentKeys(&AgentStep{}, n, inAgent, p.stepScope(0))
		default:
			t.Errorf("%s.%s: this test does not know the map %s", k.In, k.Name, k.In)
		}
		for _, d := range p.bag.list {
			if d.Rule == "internal" {
				t.Errorf("%s.%s: %s", k.In, k.Name, d.Message)
			}
		}
	}
}

func wrapMap(name string, n *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, n}}
}

func wrapList(n *yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{n}}
}
