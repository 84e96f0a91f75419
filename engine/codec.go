package engine

import (
	"encoding/json"
	"fmt"
)

// bodies is the one list of event types: what is stored under which name. A
// released row never changes its name or its fields' meaning, because recorded
// runs replay for ever; new fields are optional.
var bodies = map[string]func(data []byte) (Body, error){
	RunStarted{}.Type():         decode[RunStarted],
	RunResumed{}.Type():         decode[RunResumed],
	SandboxCreated{}.Type():     decode[SandboxCreated],
	SandboxClosed{}.Type():      decode[SandboxClosed],
	WorkspaceImported{}.Type():  decode[WorkspaceImported],
	ConditionEvaluated{}.Type(): decode[ConditionEvaluated],
	StepSkipped{}.Type():        decode[StepSkipped],
	StepNotRun{}.Type():         decode[StepNotRun],
	StepStarted{}.Type():        decode[StepStarted],
	ForeachExpanded{}.Type():    decode[ForeachExpanded],
	BatchStarted{}.Type():       decode[BatchStarted],
	IterationStarted{}.Type():   decode[IterationStarted],
	WorkflowCalled{}.Type():     decode[WorkflowCalled],
	UntilEvaluated{}.Type():     decode[UntilEvaluated],
	ApprovalRequested{}.Type():  decode[ApprovalRequested],
	ApprovalAnswered{}.Type():   decode[ApprovalAnswered],
	StepSlow{}.Type():           decode[StepSlow],
	SourceChanged{}.Type():      decode[SourceChanged],
	StopRequested{}.Type():      decode[StopRequested],
	StepFinished{}.Type():       decode[StepFinished],
	TurnCompleted{}.Type():      decode[TurnCompleted],
	RetryScheduled{}.Type():     decode[RetryScheduled],
	Egress{}.Type():             decode[Egress],
	BackgroundEnded{}.Type():    decode[BackgroundEnded],
	CancelRequested{}.Type():    decode[CancelRequested],
	RunFinished{}.Type():        decode[RunFinished],
}

// UnknownEventError is a stored event of a type that this version does not know.
type UnknownEventError struct{ Type string }

func (e *UnknownEventError) Error() string {
	return fmt.Sprintf("event type %q is unknown to this version of flow: the run was written by a newer one", e.Type)
}

// Encode returns the type name and the JSON under which body is stored.
func Encode(body Body) (typ string, data []byte, err error) {
	if body == nil {
		return "", nil, fmt.Errorf("encode event: no body")
	}
	typ = body.Type()
	if _, ok := bodies[typ]; !ok {
		return "", nil, fmt.Errorf("encode event: %w", &UnknownEventError{Type: typ})
	}
	data, err = json.Marshal(body)
	if err != nil {
		return "", nil, fmt.Errorf("encode event %s: %w", typ, err)
	}
	return typ, data, nil
}

// Decode is the inverse of Encode. Unknown fields are ignored (a newer version
// may have added one), unknown types are an *UnknownEventError.
func Decode(typ string, data []byte) (Body, error) {
	read, ok := bodies[typ]
	if !ok {
		return nil, fmt.Errorf("decode event: %w", &UnknownEventError{Type: typ})
	}
	body, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("decode event %s: %w", typ, err)
	}
	return body, nil
}

func decode[B Body](data []byte) (Body, error) {
	var b B
	if err := json.Unmarshal(data, &b); err != nil {
		return nil, err
	}
	return b, nil
}
