package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"flowrun.dev/flow/agent/tools"
)

// maxText bounds a result, in bytes: a model reads all of it.
const maxText = 100 << 10

// Call asks a server. An error is of the place; what the server or its rules refuse is
// a result for the model.
func (s *Servers) Call(ctx context.Context, name string, input json.RawMessage) (tools.Result, error) {
	refused := func(text string) (tools.Result, error) { return tools.Result{Text: text, IsError: true}, nil }
	t := s.tools[name]
	if t == nil {
		return refused("No such tool available: " + name)
	}
	if d := s.policy.Judge(name, input); !d.Allow {
		return tools.Result{Text: "Permission denied: " + d.Reason, IsError: true, Denied: d.Reason}, nil
	}
	var object map[string]any
	if err := json.Unmarshal(input, &object); err != nil {
		return refused("InputValidationError: the input is no JSON object")
	}
	res, err := t.session.CallTool(ctx, &sdk.CallToolParams{Name: t.inner, Arguments: input})
	if ctx.Err() != nil {
		return tools.Result{}, context.Cause(ctx)
	}
	if err != nil {
		// The server is dead or broken: the model is told, and may go on without it.
		text := err.Error()
		var said *jsonrpc.Error
		if errors.As(err, &said) {
			text = said.Message
		} else if words := t.words(); words != "" {
			text = words
		}
		return refused(fmt.Sprintf("The MCP server %s failed: %s", t.server.name, bounded(text)))
	}
	return tools.Result{Text: bounded(textOf(res)), IsError: res.IsError}, nil
}

// textOf is a result in words. A structured one is the same in JSON, if there is no text.
func textOf(res *sdk.CallToolResult) string {
	var parts []string
	for _, c := range res.Content {
		switch c := c.(type) {
		case *sdk.TextContent:
			parts = append(parts, c.Text)
		case *sdk.ImageContent:
			parts = append(parts, fmt.Sprintf("[an image (%s, %d bytes), which is not shown]", c.MIMEType, len(c.Data)))
		case *sdk.AudioContent:
			parts = append(parts, fmt.Sprintf("[audio (%s, %d bytes), which is not shown]", c.MIMEType, len(c.Data)))
		case *sdk.EmbeddedResource:
			if c.Resource != nil && c.Resource.Text != "" {
				parts = append(parts, c.Resource.Text)
			} else if c.Resource != nil {
				parts = append(parts, fmt.Sprintf("[%s (%d bytes), which is not shown]", c.Resource.URI, len(c.Resource.Blob)))
			}
		case *sdk.ResourceLink:
			parts = append(parts, strings.TrimSpace(c.Title+" "+c.URI))
		}
	}
	if len(parts) == 0 && res.StructuredContent != nil {
		if raw, err := json.Marshal(res.StructuredContent); err == nil {
			return string(raw)
		}
	}
	return strings.Join(parts, "\n")
}

// bounded cuts a text in its middle, between characters.
func bounded(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxText {
		return text
	}
	head, tail := maxText/2, len(text)-maxText/2
	for !utf8.RuneStart(text[head]) {
		head--
	}
	for !utf8.RuneStart(text[tail]) {
		tail++
	}
	return fmt.Sprintf("%s\n… %d bytes are left out …\n%s", text[:head], tail-head, text[tail:])
}
