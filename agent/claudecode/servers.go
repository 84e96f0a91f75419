package claudecode

import (
	"context"
	"encoding/json"
	"fmt"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/tools"
)

// The CLI reaches the step's MCP servers through us, over the control protocol: a
// server that it started itself would offer all its tools (--tools does not bound
// them), and one that does not start is no error for it (measured).

// serverConfig is what --mcp-config takes: every server is ours.
func serverConfig(names []string) string {
	list := map[string]any{}
	for _, name := range names {
		list[name] = map[string]string{"type": "sdk", "name": name}
	}
	raw, _ := json.Marshal(map[string]any{"mcpServers": list}) // strings always encode
	return string(raw)
}

func toolOf(server, name string) string { return agent.MCPPrefix + server + "__" + name }

func serverNames(r agent.Request) []string {
	names := []string{}
	for _, m := range r.MCPServers {
		names = append(names, m.Name)
	}
	return names
}

// rpc is a message of JSON-RPC 2.0.
type rpc struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  any             `json:"result,omitempty"`
	Error   any             `json:"error,omitempty"`
}

const methodNotFound = -32601

// mcpMessage answers one message of the CLI to a server. A call is answered when it has
// ended; others may come before.
func (c *conversation) mcpMessage(ctx context.Context, id string, line []byte) error {
	var q struct {
		Request struct {
			Server  string `json:"server_name"`
			Message rpc    `json:"message"`
		} `json:"request"`
	}
	if err := json.Unmarshal(line, &q); err != nil {
		return fmt.Errorf("read the CLI's message to an MCP server: %w", err)
	}
	m := q.Request.Message
	answer := func(result any) error {
		return c.reply(id, map[string]any{"mcp_response": rpc{JSONRPC: "2.0", ID: m.ID, Result: result}})
	}
	switch m.Method {
	case "initialize":
		var p struct {
			Version string `json:"protocolVersion"`
		}
		_ = json.Unmarshal(m.Params, &p) // what it lacks is the empty text
		return answer(map[string]any{"protocolVersion": p.Version, "capabilities": map[string]any{"tools": map[string]any{}},
			"serverInfo": map[string]string{"name": q.Request.Server, "version": "1"}})
	case "ping":
		return answer(map[string]any{})
	case "tools/list":
		list := []any{}
		for _, s := range c.servers.Named(q.Request.Server) {
			list = append(list, map[string]any{"name": s.Name, "description": s.Description, "inputSchema": s.InputSchema})
		}
		return answer(map[string]any{"tools": list})
	case "tools/call":
		c.calling.Go(func() {
			if err := answer(c.mcpCall(ctx, q.Request.Server, m.Params)); err != nil {
				c.fail(err)
			}
		})
		return nil
	}
	if m.ID == nil { // a notification
		return answer(map[string]any{})
	}
	return c.reply(id, map[string]any{"mcp_response": rpc{JSONRPC: "2.0", ID: m.ID,
		Error: map[string]any{"code": methodNotFound, "message": "not supported: " + m.Method}}})
}

// mcpCall executes a call, which the hook has judged; the servers judge it again.
func (c *conversation) mcpCall(ctx context.Context, server string, params json.RawMessage) any {
	var p struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	}
	res := tools.Result{Text: "The call cannot be read", IsError: true}
	if json.Unmarshal(params, &p) == nil {
		if p.Arguments == nil {
			p.Arguments = json.RawMessage("{}")
		}
		var err error
		if res, err = c.servers.Call(ctx, toolOf(server, p.Name), p.Arguments); err != nil {
			res = tools.Result{Text: err.Error(), IsError: true} // the conversation is ending
		}
	}
	return map[string]any{"content": []any{map[string]string{"type": "text", "text": res.Text}}, "isError": res.IsError}
}
