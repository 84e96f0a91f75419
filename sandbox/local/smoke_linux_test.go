package local

import (
	"context"
	"os"
	"testing"

	"flowrun.dev/flow/sandbox"
)

func TestSmoke(t *testing.T) {
	d := New(Options{Path: os.Getenv("PATH")})
	c, err := d.Probe(context.Background())
	t.Logf("%+v %v", c, err)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := d.Create(context.Background(), sandbox.Spec{ID: "x", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Close(context.Background())
	res, err := sb.Exec(context.Background(), sandbox.Cmd{Argv: []string{"sh", "-c", "id; pwd; env; ls -la . / /etc /dev; cat /proc/self/status /proc/self/mounts; ps aux; touch x; ls -la; go version; ip a"}, Env: sb.BaseEnv(), Stdout: os.Stdout, Stderr: os.Stdout})
	t.Logf("%+v %v", res, err)
}
