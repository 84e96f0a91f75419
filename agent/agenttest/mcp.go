package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// MCPScript is the variable that makes a test binary an MCP server over its stdin and
// stdout. Its value is how it behaves: serve, die (at the first call), refuse (at once),
// silent (never answers), or many (more tools than a conversation takes).
const MCPScript = "TEST_MCP_SERVER"

// MCPMain is called by TestMain: true when the process was the scripted server.
func MCPMain() bool {
	how := os.Getenv(MCPScript)
	switch how {
	case "":
		return false
	case "refuse":
		fmt.Fprintln(os.Stderr, "the server's last words")
		os.Exit(3)
	case "silent":
		select {}
	}
	if err := MCPServer(how).Run(context.Background(), &sdk.StdioTransport{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return true
}

// MCPHandler serves the scripted server over HTTP.
func MCPHandler() http.Handler {
	return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return MCPServer("serve") },
		&sdk.StreamableHTTPOptions{DisableLocalhostProtection: true}) // tests play other hosts on loopback
}

// MCPServer has the tools echo (text → text), write.file (name, text → a file in the
// working directory), env (name → value), fail, and hidden, which tests do not allow.
func MCPServer(how string) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "scripted", Version: "1"}, nil)
	add := func(name string, run func(in map[string]string) (string, error)) {
		s.AddTool(&sdk.Tool{Name: name, Description: "The scripted tool " + name, InputSchema: json.RawMessage(`{"type":"object","properties":{"text":{"type":"string"},"name":{"type":"string"}}}`)},
			func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
				if how == "die" {
					fmt.Fprintln(os.Stderr, "the server dies")
					os.Exit(4)
				}
				var in map[string]string
				if err := json.Unmarshal(r.Params.Arguments, &in); err != nil {
					return nil, err
				}
				text, err := run(in)
				if err != nil {
					return &sdk.CallToolResult{IsError: true, Content: []sdk.Content{&sdk.TextContent{Text: err.Error()}}}, nil
				}
				return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: text}}}, nil
			})
	}
	add("echo", func(in map[string]string) (string, error) { return "echo: " + in["text"], nil })
	add("write.file", func(in map[string]string) (string, error) {
		return "written", os.WriteFile(in["name"], []byte(in["text"]), 0o644)
	})
	add("env", func(in map[string]string) (string, error) { return in["name"] + "=" + os.Getenv(in["name"]), nil })
	add("fail", func(map[string]string) (string, error) { return "", fmt.Errorf("it failed as asked") })
	add("large", func(map[string]string) (string, error) { return strings.Repeat("0123456789", 100_000), nil })
	add("hidden", func(map[string]string) (string, error) { return "never", nil })
	if how == "many" {
		for i := range 300 {
			add(fmt.Sprint("tool", i), func(map[string]string) (string, error) { return "", nil })
		}
	}
	return s
}
