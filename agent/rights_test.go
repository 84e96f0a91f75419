package agent_test

import (
	"reflect"
	"strings"
	"testing"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/sandbox"
)

func TestRights(t *testing.T) {
	t.Parallel()
	all := sandbox.Rights{}
	ro := func(write ...string) sandbox.Rights { return sandbox.Rights{ReadOnly: true, Write: write} }
	for _, c := range []struct {
		allowed, disallowed string
		want                sandbox.Rights
		words               string
	}{
		{"", "", ro(), "may change no file; runs no commands"},
		{"Read Glob Grep", "", ro(), "may change no file; runs no commands"},
		{"Read Bash", "", all, "may change every file of the workspace and the home; runs any command"},
		{"Read Write", "", all, "may change every file of the workspace and the home; runs no commands"},
		{"Write(./src/**)", "", ro("src/"), "may change files in src/ only; runs no commands"},
		{"Edit(./src/**) Write(docs/*.md) Edit(./src/**)", "", ro("docs/", "src/"), "may change files in docs/, src/ only; runs no commands"},
		{"Edit(*.go)", "", ro("~/workspace/"), "may change files in the workspace only; runs no commands"},
		{"Write(go.mod)", "", ro("~/workspace/"), ""},
		{"Write(a/b.txt)", "", ro("a/"), ""},
		{"Write(~/notes/x)", "", ro("~/notes/"), ""},
		{"Write(~/*)", "", all, ""},
		{"Write(//**)", "", all, ""},
		{"Write(//etc/**)", "", ro(), ""},
		{"Edit(./src/**) Bash(go_test:*)", "", ro("src/"), "may change files in src/ only; runs only: go test; what these programs do when they run is bounded by the sandbox and the writable files, not by the patterns"},
		{"Read Bash(make:*)", "", all, "may change every file of the workspace and the home; runs only: make; what these programs do when they run is bounded by the sandbox and the writable files, not by the patterns"},
		{"Read Bash Write", "Bash Write", ro(), "may change no file; runs no commands; never: Bash, Write"},
		{"Read mcp__srv__tool", "", all, ""},
		{"Read WebFetch(domain:x.org)", "", ro(), ""},
	} {
		list := func(s string) []string {
			out := strings.Fields(s)
			for i := range out {
				out[i] = strings.ReplaceAll(out[i], "go_test", "go test")
			}
			return out
		}
		p, err := agent.NewPolicy(list(c.allowed), list(c.disallowed))
		if err != nil {
			t.Fatal(err)
		}
		got := p.Rights()
		if !reflect.DeepEqual(got, c.want) || got.Check() != nil {
			t.Errorf("%s / %s: got %+v, want %+v; %v", c.allowed, c.disallowed, got, c.want, got.Check())
		}
		words, err := agent.RightsText(list(c.allowed), list(c.disallowed))
		if err != nil || c.words != "" && strings.Join(words, "; ") != c.words {
			t.Errorf("%s: %q, %v", c.allowed, strings.Join(words, "; "), err)
		}
	}
}
