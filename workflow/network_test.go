package workflow

import (
	"slices"
	"strings"
	"testing"
)

func parseSteps(t *testing.T, text string) *Workflow {
	t.Helper()
	w, err := Parse("n.yaml", []byte(text), ParseOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	w := parseSteps(t, `name: n
secrets: [{name: KEY, inject: {host: API.example.com:8443, header: X-Key, format: "k {}"}}]
sandbox: {network: {allow: [Mirror.example.org.]}}
steps:
  - {id: a, run: x}
  - {id: b, run: x, network: none}
  - {id: c, run: x, network: full}
  - id: d
    run: x
    secrets: [KEY]
    network:
      allow: ["*.example.com:8443", "[2001:db8::1]:80", 203.0.113.7, {host: plain.example, ports: [80], methods: [GET], paths: [/a/*]}]
`)
	for i, want := range []string{"only mirror.example.org", "none", "full",
		"only *.example.com:8443, 2001:db8::1:80, 203.0.113.7, plain.example:80 (GET /a/*)"} {
		if got := w.Steps[i].Network.String(); got != want {
			t.Errorf("step %d: %s, want %s", i, got, want)
		}
	}
	in := w.Secrets[0].Inject
	if in == nil || in.Host != "api.example.com" || in.Port != 8443 || in.Header != "X-Key" || in.Format != "k {}" {
		t.Errorf("inject = %+v", in)
	}
	if len(w.Warnings) > 0 {
		t.Errorf("warnings: %+v", w.Warnings)
	}
	hashes := []string{w.Steps[0].Hash, w.Steps[1].Hash, w.Steps[2].Hash, w.Steps[3].Hash}
	slices.Sort(hashes)
	if len(slices.Compact(hashes)) != 4 {
		t.Error("the network is not part of the hash")
	}
}

// TestNetworkHash: what grants is part of what is compared on a resume.
func TestNetworkHash(t *testing.T) {
	t.Parallel()
	form := func(network, inject string) string {
		return parseSteps(t, "name: n\nsecrets: [{name: K, inject: {host: a.example"+inject+"}}]\nsteps: [{id: a, run: x, secrets: [K], network: "+network+"}]\n").Steps[0].Hash
	}
	base := form(`{allow: [a.example]}`, "")
	for _, c := range [][2]string{{`{allow: [a.example, b.example]}`, ""}, {`{allow: ["a.example:443"]}`, ""}, {`{allow: [a.example]}`, ", header: X"}} {
		if form(c[0], c[1]) == base {
			t.Errorf("%v: the hash is the same", c)
		}
	}
	if form(`{allow:   [A.example.]}`, "") != base {
		t.Error("another way to write it changes the hash")
	}
}

func TestUnreadableRule(t *testing.T) {
	t.Parallel()
	w := parseSteps(t, "name: n\nsandbox: {network: {allow: [{host: a.example, methods: [GET]}]}}\nsteps: [{id: a, run: x}, {id: b, run: x}]\n")
	if len(w.Warnings) != 1 || !strings.Contains(w.Warnings[0].Message, "cannot be seen in TLS") {
		t.Errorf("warnings: %+v", w.Warnings)
	}
}
