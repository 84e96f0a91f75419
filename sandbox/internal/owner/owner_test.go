//go:build unix

package owner

import (
	"os/exec"
	"strconv"
	"testing"
)

func TestAlive(t *testing.T) {
	t.Parallel()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		Name("/x/flow-a"): true, "/x/flow-1": true, "flow-a": true, "flow-": true, "flow-0": true, "flow--5": false || Alive("flow-5"),
		"/x-99/flow-a-" + strconv.Itoa(dead.Process.Pid): false,
	} {
		if got := Alive(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
