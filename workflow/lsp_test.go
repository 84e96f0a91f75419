package workflow

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// languageServer finds what .ci/lsp installs, or one that is on PATH. The test is
// skipped only where node or the server is absent.
func languageServer(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not on PATH")
	}
	own, err := filepath.Abs("../.ci/node/node_modules/.bin/yaml-language-server")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{own, "yaml-language-server"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	t.Skip("yaml-language-server is absent: .ci/lsp installs it")
	return ""
}

// lsp is a client of a language server over stdio.
type lsp struct {
	t        *testing.T
	in       io.WriteCloser
	out      *bufio.Reader
	id       int
	settings map[string]any
	notes    []message // notifications that came while something else was awaited
}

type message struct {
	ID     any             `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

func (c *lsp) send(m map[string]any) {
	c.t.Helper()
	m["jsonrpc"] = "2.0"
	b, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c.in, "Content-Length: %d\r\n\r\n%s", len(b), b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *lsp) notify(method string, params any) {
	c.t.Helper()
	c.send(map[string]any{"method": method, "params": params})
}

func (c *lsp) read() message {
	c.t.Helper()
	length := 0
	for {
		line, err := c.out.ReadString('\n')
		if err != nil {
			c.t.Fatalf("the server ended: %v", err)
		}
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		if n, ok := strings.CutPrefix(line, "Content-Length: "); ok {
			length, _ = strconv.Atoi(n)
		}
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(c.out, b); err != nil {
		c.t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		c.t.Fatal(err)
	}
	if m.Method != "" && m.ID != nil { // the server asks
		var result any
		if m.Method == "workspace/configuration" {
			var p struct{ Items []struct{ Section string } }
			_ = json.Unmarshal(m.Params, &p)
			list := []any{}
			for _, item := range p.Items {
				list = append(list, c.settings[item.Section])
			}
			result = list
		}
		c.send(map[string]any{"id": m.ID, "result": result})
	}
	return m
}

func (c *lsp) call(method string, params any) json.RawMessage {
	c.t.Helper()
	c.id++
	c.send(map[string]any{"id": c.id, "method": method, "params": params})
	for {
		m := c.read()
		if m.Method == "" && m.ID == float64(c.id) {
			if m.Error != nil {
				c.t.Fatalf("%s: %s", method, m.Error)
			}
			return m.Result
		}
		if m.Method != "" && m.ID == nil {
			c.notes = append(c.notes, m)
		}
	}
}

// await reads until a notification about a document comes.
func (c *lsp) await(method, uri string) json.RawMessage {
	c.t.Helper()
	for {
		for i, m := range c.notes {
			if m.Method == method && strings.Contains(string(m.Params), uri) {
				c.notes = append(c.notes[:i], c.notes[i+1:]...)
				return m.Params
			}
		}
		if m := c.read(); m.Method != "" && m.ID == nil {
			c.notes = append(c.notes, m)
		}
	}
}

// TestEditor drives the real yaml-language-server with schema.json: what an author
// sees in an editor.
func TestEditor(t *testing.T) {
	t.Parallel()
	server := languageServer(t)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, server, "--stdio")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		cancel()
		_ = cmd.Wait()
	}()
	schema := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(schema, Schema(), 0o644); err != nil {
		t.Fatal(err)
	}
	c := &lsp{t: t, in: in, out: bufio.NewReader(out), settings: map[string]any{"yaml": map[string]any{
		"schemas": map[string]any{"file://" + schema: "*.yaml"}, "validate": true, "hover": true, "completion": true, "schemaStore": map[string]any{"enable": false},
	}}}
	c.call("initialize", map[string]any{"processId": os.Getpid(), "rootUri": nil, "capabilities": map[string]any{
		"workspace":    map[string]any{"configuration": true, "didChangeConfiguration": map[string]any{}},
		"textDocument": map[string]any{"completion": map[string]any{"completionItem": map[string]any{"snippetSupport": true, "documentationFormat": []string{"markdown"}}}, "hover": map[string]any{"contentFormat": []string{"markdown"}}},
	}})
	c.notify("initialized", map[string]any{})
	c.notify("workspace/didChangeConfiguration", map[string]any{"settings": c.settings})
	open := func(name, text string) string {
		uri := "file:///project/" + name
		c.notify("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": uri, "languageId": "yaml", "version": 1, "text": text}})
		return uri
	}
	at := func(uri string, line, col int) map[string]any {
		return map[string]any{"textDocument": map[string]any{"uri": uri}, "position": map[string]any{"line": line, "character": col}}
	}
	type diagnostic struct {
		Message string
		Range   struct{ Start, End struct{ Line, Character int } }
	}
	diagnostics := func(uri string) []diagnostic {
		var p struct{ Diagnostics []diagnostic }
		if err := json.Unmarshal(c.await("textDocument/publishDiagnostics", uri), &p); err != nil {
			t.Fatal(err)
		}
		return p.Diagnostics
	}

	// A good file has no mistake.
	good := open("good.yaml", "name: good\nsteps:\n  - id: a\n    run: echo\n    timeout: 5m\n")
	if d := diagnostics(good); len(d) > 0 {
		t.Errorf("a good file: %+v", d)
	}

	// A misspelt key is underlined.
	bad := open("bad.yaml", "name: bad\nsteps:\n  - id: a\n    run: echo\n    timeuot: 5m\n")
	found := false
	for _, d := range diagnostics(bad) {
		t.Logf("diagnostic %d:%d-%d %s", d.Range.Start.Line+1, d.Range.Start.Character+1, d.Range.End.Character+1, d.Message)
		found = found || strings.Contains(d.Message, "timeuot") && d.Range.Start.Line == 4 && d.Range.Start.Character == 4 && d.Range.End.Character == 11
	}
	if !found {
		t.Error("the misspelt key is not underlined")
	}

	// Completion inside a step lists the keys that are not there yet.
	half := open("half.yaml", "name: half\nsteps:\n  - id: a\n    \n")
	diagnostics(half)
	var list struct{ Items []struct{ Label string } }
	if err := json.Unmarshal(c.call("textDocument/completion", at(half, 3, 4)), &list); err != nil {
		t.Fatal(err)
	}
	labels := map[string]bool{}
	for _, i := range list.Items {
		labels[i.Label] = true
	}
	t.Logf("completion in a step: %v", keysOf(labels))
	for _, name := range supported(inStep) {
		if name != "id" && !labels[name] {
			t.Errorf("completion does not list %s", name)
		}
	}

	// Completion of a value lists its words.
	words := open("words.yaml", "name: words\nsteps:\n  - id: a\n    run: x\n    retry:\n      backoff: \n")
	diagnostics(words)
	if err := json.Unmarshal(c.call("textDocument/completion", at(words, 5, 15)), &list); err != nil {
		t.Fatal(err)
	}
	for _, want := range keyOf(inRetry, "backoff").Enum {
		ok := false
		for _, i := range list.Items {
			ok = ok || i.Label == want
		}
		if !ok {
			t.Errorf("completion of backoff does not list %s: %v", want, list.Items)
		}
	}

	// Hover shows the text of the table.
	hover := string(c.call("textDocument/hover", at(good, 4, 6)))
	t.Logf("hover: %s", hover)
	if !strings.Contains(hover, keyOf(inStep, "timeout").Doc) {
		t.Errorf("hover does not show the text: %s", hover)
	}
}
