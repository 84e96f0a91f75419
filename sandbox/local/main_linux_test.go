package local

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if InitMain(os.Args) {
		return
	}
	goleak.VerifyTestMain(m)
}
