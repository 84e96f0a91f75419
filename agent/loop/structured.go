package loop

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"flowrun.dev/flow/agent/tools"
)

// StructuredTool is the tool by which a conversation gives the value that its
// output_schema asks for. It is offered beside the allowed tools and executes nothing.
const StructuredTool = "StructuredOutput"

// maxWrong and MaxReminders bound how often the model may give a wrong value, or end
// without one.
const (
	maxWrong     = 5
	MaxReminders = 2
)

// structured is the state of an output_schema; nil when there is none.
type structured struct {
	schema    *Output
	raw       json.RawMessage
	value     json.RawMessage // the accepted one
	wrong     int
	reminders int
}

func newStructured(raw json.RawMessage) (*structured, error) {
	if raw == nil {
		return nil, nil
	}
	schema, err := NewOutput(raw)
	if err != nil {
		return nil, err
	}
	return &structured{schema: schema, raw: raw}, nil
}

// Output judges what a conversation ends with, by its output_schema.
type Output struct{ schema *jsonschema.Resolved }

// NewOutput reads an output_schema.
func NewOutput(raw json.RawMessage) (*Output, error) {
	var doc jsonschema.Schema
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("read output_schema: %w", err)
	}
	schema, err := doc.Resolve(nil)
	if err != nil {
		return nil, fmt.Errorf("read output_schema: %w", err)
	}
	return &Output{schema}, nil
}

// Check says why a value is not what the schema wants, on one line.
func (o *Output) Check(value json.RawMessage) error {
	var doc any
	err := json.Unmarshal(value, &doc)
	if err == nil {
		err = o.schema.Validate(doc)
	}
	if err != nil {
		return errors.New(wrongWords(err))
	}
	return nil
}

// WithoutOutput is the failure of a conversation that was reminded often enough.
func WithoutOutput() error {
	return failed(fmt.Errorf("the conversation ended without the result that output_schema asks for, after %d reminders", MaxReminders), "say in the prompt what the result is")
}

func (s *structured) spec() tools.Spec {
	return tools.Spec{Name: StructuredTool, InputSchema: s.raw,
		Description: "Gives the result of the whole task. Call it once, at the end; the conversation ends with it. Its input has to be valid by the schema."}
}

// give judges a value. A later one replaces an earlier.
func (s *structured) give(input json.RawMessage) tools.Result {
	if err := s.schema.Check(input); err != nil {
		s.wrong++
		return tools.Result{IsError: true, Text: "Output does not match the schema: " + err.Error()}
	}
	s.value = input
	return tools.Result{Text: "The result was accepted."}
}

// wrongWords is what the validator says, on one line.
func wrongWords(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if r := []rune(text); len(r) > 1000 {
		text = string(r[:1000]) + "…"
	}
	return text
}

// Reminder is what the model is told when it ends without the result.
const Reminder = "Call the tool " + StructuredTool + " now, with the result of the task as its schema wants it."

// structuredAfter is what follows from a complete turn. goOn: the conversation goes on
// although the model wanted to end it; the reminder is in the messages then.
func (c *conversation) structuredAfter(stop string) (done, goOn bool, err error) {
	s := c.structured
	switch {
	case s == nil:
		return false, false, nil
	case s.value != nil:
		c.res.Structured = s.value
		return true, false, nil
	case s.wrong >= maxWrong:
		return false, false, failed(fmt.Errorf("the model gave %d results that output_schema does not accept", s.wrong), "make output_schema simpler, or say in the prompt what it means")
	case stop != StopEndTurn && stop != StopSequence:
		return false, false, nil
	case s.reminders >= MaxReminders:
		return false, false, WithoutOutput()
	}
	s.reminders++
	c.messages = append(c.messages, Input{Role: "user", Content: []json.RawMessage{textBlock(Reminder)}})
	return false, true, nil
}
