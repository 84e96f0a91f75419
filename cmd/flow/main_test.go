package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"flowrun.dev/flow/agent/agenttest"
	"flowrun.dev/flow/cmd/flow/internal/tracer"
	"flowrun.dev/flow/sandbox/local"
)

// TestMain makes the test binary several programs: the sandbox's init, the tracer of
// the crash tests, and flow itself and its companions for the scripts. The companions
// are first on PATH for all tests: none may have the name of a tool (one called `as`
// took the assembler away from tests that build the binary).
func TestMain(m *testing.M) {
	if local.InitMain(os.Args) || agenttest.ACPMain() {
		return
	}
	if job := os.Getenv(tracer.Env); job != "" {
		os.Exit(tracer.Main(job, os.Stderr))
	}
	testscript.Main(m, map[string]func(){"flow": mainInWorld, "refuse-namespaces": refuseNamespaces, "as-mode": asMode})
}

// TestScripts runs what a user would type. Run with -update to rewrite expected output.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("LANG", "C.UTF-8")
			root, err := filepath.Abs("../..")
			env.Setenv("ROOT", root)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"world": cmdWorld},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "sandbox":
				return sandboxWorks(), nil
			case "landlock":
				return landlockWorks(), nil
			case "root":
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// sandboxWorks says whether the local driver can run on this machine: where it
// cannot (a container's default profile), scripts that need it are skipped.
var sandboxWorks = sync.OnceValue(func() bool {
	_, err := local.New(local.Options{}).Probe(context.Background())
	if err != nil {
		fmt.Fprintf(os.Stderr, "local sandbox does not work here, its scripts are skipped: %v\n", err)
	}
	return err == nil
})

// landlockWorks says whether the tier of machines that refuse namespaces works here.
var landlockWorks = sync.OnceValue(func() bool {
	exe, err := os.Executable()
	if err != nil {
		return false
	}
	// testscript has made this binary a program by each of its names.
	cmd := exec.Command("refuse-namespaces", "flow", "doctor", "--json")
	if cmd.Err != nil {
		fmt.Fprintf(os.Stderr, "tier landlock: %v (%s)\n", cmd.Err, exe)
		return false
	}
	out, err := cmd.CombinedOutput()
	return err == nil && strings.Contains(string(out), "tier landlock")
})

// realBinary builds the static binary that users get, once a test run.
var realBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "flow-bin-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "flow")
	cmd := exec.Command("go", "build", "-tags", "osusergo,netgo,sqlite_omit_load_extension",
		"-ldflags", "-linkmode external -extldflags -static", "-o", bin, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	// An ordinary user must reach it too.
	return bin, os.Chmod(dir, 0o755)
})

func flowBinary(t *testing.T) string {
	t.Helper()
	bin, err := realBinary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// flow runs the real binary in dir and returns its output and exit code.
func flow(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(flowBinary(t), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "FLOW_STATE=", "LANG=C.UTF-8")
	out, err := cmd.CombinedOutput()
	code := 0
	if err != nil {
		ee, ok := err.(*exec.ExitError)
		if !ok {
			t.Fatalf("flow %s: %v", strings.Join(args, " "), err)
		}
		code = ee.ExitCode()
	}
	return string(out), code
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
