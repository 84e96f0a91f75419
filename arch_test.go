package flow_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// imports is the import law (docs/architecture.md): which folders of this module
// a folder may import, and which parts of the standard library it must not. A
// change of this table needs its reason in the commit.
var imports = map[string]struct{ may, mustNot []string }{
	"cmd":        {may: []string{"workflow", "engine", "steps", "agent", "sandbox", "egress", "state", "checkpoint", "redact", "report"}},
	"report":     {may: []string{"workflow", "engine", "redact"}, mustNot: []string{"database/sql", "os/exec", "net/http"}},
	"state":      {may: []string{"engine", "workflow", "checkpoint", "redact"}, mustNot: []string{"os/exec", "net/http"}},
	"steps":      {may: []string{"engine", "workflow", "sandbox", "egress", "agent", "checkpoint", "redact"}, mustNot: []string{"database/sql", "os/exec"}},
	"agent":      {may: []string{"sandbox", "redact"}, mustNot: []string{"database/sql", "os/exec"}},
	"engine":     {may: []string{"workflow", "redact"}, mustNot: []string{"os", "net", "net/http", "database/sql", "os/exec"}},
	"egress":     {may: []string{"redact"}, mustNot: []string{"database/sql", "os/exec"}},
	"sandbox":    {may: []string{"checkpoint", "redact"}, mustNot: []string{"database/sql", "net/http"}},
	"checkpoint": {mustNot: []string{"database/sql", "net", "os/exec"}},
	"workflow":   {may: []string{"redact"}, mustNot: []string{"net", "net/http", "database/sql", "os/exec"}},
	"redact":     {mustNot: []string{"os", "net", "database/sql", "os/exec"}},
}

const module = "flowrun.dev/flow/"

// TestImportLaw lists what each package (without its tests) imports.
func TestImportLaw(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		folder, ok := strings.CutPrefix(fields[0], module)
		if !ok {
			continue // the module's root, which has tests only
		}
		top, _, _ := strings.Cut(folder, "/")
		law, ok := imports[top]
		if !ok {
			t.Errorf("package %s: folder %q has no row in the import law", fields[0], top)
			continue
		}
		seen[top] = true
		for _, imp := range fields[1:] {
			inner, ours := strings.CutPrefix(imp, module)
			innerTop, _, _ := strings.Cut(inner, "/")
			switch {
			case ours && innerTop != top && !slices.Contains(law.may, innerTop):
				t.Errorf("%s imports %s: %s may import only %v", fields[0], imp, top, law.may)
			case !ours && slices.Contains(law.mustNot, imp) && !isTestSupport(folder):
				t.Errorf("%s imports %s, which %s must not", fields[0], imp, top)
			}
		}
	}
	for folder := range imports {
		if !seen[folder] {
			t.Errorf("the import law has a row for %q, which does not exist", folder)
		}
	}
}

// isTestSupport: conformance suites and fakes (sandboxtest, agenttest, storetest)
// are linked into tests only.
func isTestSupport(folder string) bool { return strings.HasSuffix(folder, "test") }

// TestNoInit: wiring is a table that one can read, so no package registers itself.
func TestNoInit(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("git", "grep", "-nE", `^func init\(\)|^	_ "`, "--", "*.go", ":!*_test.go").CombinedOutput()
	if err != nil && len(out) == 0 {
		return // git grep exits 1 when nothing matches
	}
	for line := range strings.Lines(string(out)) {
		// database/sql finds its driver by registration only.
		if strings.Contains(line, `"github.com/mattn/go-sqlite3"`) {
			continue
		}
		t.Errorf("registration by import or init: %s", line)
	}
}
