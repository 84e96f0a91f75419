package local

import (
	"os"
	"strings"
	"testing"

	"flowrun.dev/flow/sandbox"
)

func TestTrust(t *testing.T) {
	t.Parallel()
	const pem = "-----BEGIN CERTIFICATE-----\nflowmark\n-----END CERTIFICATE-----\n"
	sb := newSandbox(t, sandbox.Spec{Trust: []byte(pem)})
	out, res := run(t, sb, `cat "$1"; grep -c flowmark "$2"; head -c 27 "$2"; (: > "$1") 2>/dev/null || echo kept`, sandbox.TrustFile, sandbox.TrustBundle)
	if res.ExitCode != 0 || !strings.HasPrefix(out, pem+"1\n-----BEGIN CERTIFICATE-----") || !strings.HasSuffix(out, "kept\n") {
		t.Errorf("%+v %q", res, out)
	}
	found := false
	for _, name := range bundles {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		found = true
		if strings.Contains(string(b), "flowmark") {
			t.Errorf("the host's %s was changed", name)
		}
		inside, res := run(t, sb, `cat "$1"`, name)
		if res.ExitCode != 0 || !strings.HasSuffix(inside, pem) || !strings.HasPrefix(inside, strings.TrimRight(string(b), "\n")) {
			t.Errorf("%s inside: %+v, %d bytes, the host's has %d", name, res, len(inside), len(b))
		}
	}
	if !found {
		t.Log("this machine has no bundle of certificates")
	}
	if out, _ := run(t, newSandbox(t, sandbox.Spec{}), "ls /etc/flow"); !strings.Contains(out, "No such file") {
		t.Errorf("without Spec.Trust: %q", out)
	}
}
