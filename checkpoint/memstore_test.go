package checkpoint_test

import (
	"testing"

	"flowrun.dev/flow/checkpoint"
	"flowrun.dev/flow/checkpoint/storetest"
)

func TestMemStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) checkpoint.Store { return &checkpoint.MemStore{} })
}
