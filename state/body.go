package state

import (
	"encoding/json"
	"fmt"
	"reflect"

	"flowrun.dev/flow/engine"
)

// bodyTypes lists what may be stored. A body of another type, a pointer to one of
// these included, is refused: the projections switch on the concrete type.
func bodyTypes() []engine.Body {
	return []engine.Body{
		engine.RunStarted{}, engine.RunResumed{}, engine.SandboxCreated{}, engine.SandboxClosed{},
		engine.WorkspaceImported{}, engine.ConditionEvaluated{}, engine.StepSkipped{}, engine.StepNotRun{},
		engine.StepStarted{}, engine.StepFinished{}, engine.RetryScheduled{}, engine.CancelRequested{}, engine.RunFinished{},
	}
}

func encodeBody(b engine.Body) ([]byte, error) {
	for _, known := range bodyTypes() {
		if reflect.TypeOf(b) == reflect.TypeOf(known) {
			return json.Marshal(b)
		}
	}
	return nil, fmt.Errorf("a body of type %T cannot be stored", b)
}

func decodeBody(typ string, data []byte) (engine.Body, error) {
	for _, known := range bodyTypes() {
		if known.Type() == typ {
			v := reflect.New(reflect.TypeOf(known))
			if err := json.Unmarshal(data, v.Interface()); err != nil {
				return nil, fmt.Errorf("decode event %s: %w", typ, err)
			}
			return v.Elem().Interface().(engine.Body), nil
		}
	}
	return nil, fmt.Errorf("decode event: type %q is not known to this version", typ)
}
