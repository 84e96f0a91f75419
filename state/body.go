package state

import (
	"fmt"
	"reflect"

	"flowrun.dev/flow/engine"
)

// encodeBody is engine.Encode for what the projections understand: they switch on
// the concrete type, so a pointer to one would be stored and projected to nothing.
func encodeBody(b engine.Body) ([]byte, error) {
	if b != nil && reflect.TypeOf(b).Kind() == reflect.Pointer {
		return nil, fmt.Errorf("a body of type %T cannot be stored: it must be a value", b)
	}
	_, data, err := engine.Encode(b)
	return data, err
}
