package claudecode

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/sandbox"
)

// recorded are result events of version 2.1.330, by case, in order. They were written
// by the real CLI against a scripted API and shortened to what is read and counted.
func recorded(t *testing.T) map[string][]ending {
	t.Helper()
	f, err := os.Open("testdata/results.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]ending{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var row struct {
			Case string
			Exit int
			Line resultEvent
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		out[row.Case] = append(out[row.Case], ending{exit: sandbox.Result{ExitCode: row.Exit}, result: &row.Line, stop: row.Line.StopReason, maxTurns: 1})
	}
	return out
}

// TestRecordedOutcomes: the class of every row of the CLI's exits, also where no CLI is
// installed.
func TestRecordedOutcomes(t *testing.T) {
	t.Parallel()
	rows := recorded(t)
	for name, want := range map[string]struct {
		class agent.Class
		text  string
	}{
		"rate":      {agent.ClassRateLimit, "429"},
		"over":      {agent.ClassRateLimit, "529"},
		"auth":      {agent.ClassInvalid, "401"},
		"large":     {agent.ClassFailed, "image"},
		"long":      {agent.ClassFailed, "context window"},
		"turns":     {agent.ClassFailed, "max_turns: 1"},
		"budget":    {agent.ClassBudget, "$0.0001"},
		"schemabad": {agent.ClassFailed, "schema"},
		"resume":    {agent.ClassInvalid, "No conversation found"},
		"int":       {agent.ClassInfrastructure, "broke off"},
		"schema":    {}, // the exit says success; what was asked for is not there
		"bg":        {},
	} {
		list := rows[name]
		if len(list) == 0 {
			t.Fatalf("%s is not recorded", name)
		}
		e := list[len(list)-1]
		got := e.failure()
		if (got == nil) != (want.class == "") || got != nil && (got.Class != want.class || !strings.Contains(got.Error(), want.text)) {
			t.Errorf("%s: got %v, want class %q with %q", name, got, want.class, want.text)
		}
	}
	if bg := rows["bg"]; len(bg) != 2 || bg[1].result.Result != "after bg" {
		t.Errorf("background work gives two results: %+v", bg)
	}
}

// TestSilentOutcomes: what ends without a result, and what contradicts itself.
func TestSilentOutcomes(t *testing.T) {
	t.Parallel()
	success := func(change func(*resultEvent)) *resultEvent {
		r := &resultEvent{Subtype: "success", StopReason: "end_turn"}
		if change != nil {
			change(r)
		}
		return r
	}
	api := &agent.Error{Class: agent.ClassRateLimit, RetryAfter: 7 * time.Second, Err: errors.New("from the wire")}
	for name, c := range map[string]struct {
		e     ending
		class agent.Class
		text  string
	}{
		"success":                {ending{result: success(nil), stop: "end_turn"}, "", ""},
		"stop sequence":          {ending{result: success(nil), stop: "stop_sequence"}, "", ""},
		"killed":                 {ending{exit: sandbox.Result{ExitCode: 137, Signal: int(syscall.SIGKILL)}}, agent.ClassInfrastructure, "killed"},
		"SIGTERM":                {ending{exit: sandbox.Result{ExitCode: 143}}, agent.ClassInfrastructure, "terminated"},
		"SIGHUP":                 {ending{exit: sandbox.Result{ExitCode: 129}}, agent.ClassInfrastructure, "hangup"},
		"SIGINT, no result":      {ending{}, agent.ClassInfrastructure, "interrupted"},
		"not there":              {ending{exit: sandbox.Result{ExitCode: 127}, stderr: "not found"}, agent.ClassInvalid, "not found"},
		"not executable":         {ending{exit: sandbox.Result{ExitCode: 126}, stderr: "denied"}, agent.ClassInvalid, "denied"},
		"bad flag":               {ending{exit: sandbox.Result{ExitCode: 1}, stderr: "unknown option"}, agent.ClassInvalid, "unknown option"},
		"1 and silence":          {ending{exit: sandbox.Result{ExitCode: 1}}, agent.ClassInfrastructure, "exit code 1"},
		"killed after success":   {ending{exit: sandbox.Result{ExitCode: 137, Signal: 9}, result: success(nil), stop: "end_turn"}, agent.ClassInfrastructure, "killed"},
		"success with is_error":  {ending{result: success(func(r *resultEvent) { r.IsError, r.Result = true, "words" })}, agent.ClassInfrastructure, "words"},
		"the wire knows better":  {ending{result: success(func(r *resultEvent) { r.IsError, r.APIErrorStatus = true, 500 }), api: api}, agent.ClassRateLimit, "from the wire"},
		"a status only":          {ending{result: success(func(r *resultEvent) { r.IsError, r.APIErrorStatus = true, 403 })}, agent.ClassInvalid, "403"},
		"unreachable":            {ending{result: success(func(r *resultEvent) { r.IsError, r.TerminalReason = true, "api_error" })}, agent.ClassInfrastructure, "api_error"},
		"refusal":                {ending{result: success(func(r *resultEvent) { r.IsError, r.StopReason = true, "refusal" })}, agent.ClassFailed, "refused"},
		"paused":                 {ending{result: success(nil), stop: "pause_turn"}, agent.ClassFailed, "paused"},
		"cut off":                {ending{result: success(nil), stop: "max_tokens"}, agent.ClassFailed, "cut off"},
		"no answer at all":       {ending{result: success(nil)}, agent.ClassFailed, "no stop reason"},
		"an unknown result":      {ending{result: &resultEvent{Subtype: "error_of_tomorrow"}}, agent.ClassFailed, "error_of_tomorrow"},
		"interrupted by control": {ending{exit: sandbox.Result{ExitCode: 1}, result: &resultEvent{Subtype: "error_during_execution", Errors: []string{"aborted"}}}, agent.ClassInfrastructure, "aborted"},
	} {
		got := c.e.failure()
		if (got == nil) != (c.class == "") || got != nil && (got.Class != c.class || !strings.Contains(got.Error(), c.text)) {
			t.Errorf("%s: got %v, want class %q with %q", name, got, c.class, c.text)
		}
	}
	if got := (ending{result: success(func(r *resultEvent) { r.IsError = true }), api: api}).failure(); got.RetryAfter != 7*time.Second {
		t.Errorf("Retry-After is lost: %v", got.RetryAfter)
	}
}

// TestMessage: answers from their events, whole and broken.
func TestMessage(t *testing.T) {
	t.Parallel()
	const begin = `data: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}` + "\n\n"
	const text = `data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}` + "\n\n" +
		`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}` + "\n\n" + `data: {"type":"content_block_stop","index":0}` + "\n\n"
	const end = `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}` + "\n\n" + `data: {"type":"message_stop"}` + "\n\n"
	raw, err := message("text/event-stream; charset=utf-8", []byte(begin+"event: ping\ndata: {\"type\":\"ping\"}\n\ndata: {\"type\":\"of_tomorrow\"}\n\n"+text+end))
	if err != nil || !strings.Contains(string(raw), `"hi"`) || !strings.Contains(string(raw), "end_turn") {
		t.Errorf("got %s, %v", raw, err)
	}
	for name, body := range map[string]string{"nothing": "", "cut": begin + text, "no JSON": "data: {\n", "a delta of nothing": begin + strings.Replace(text, "content_block_start", "ping", 1) + end} {
		if raw, err := message("text/event-stream", []byte(body)); !errors.Is(err, errNoAnswer) {
			t.Errorf("%s: got %s, %v", name, raw, err)
		}
	}
	var refused *streamError
	if _, err := message("text/event-stream", []byte(begin+`data: {"type":"error","error":{"type":"overloaded_error","message":"x"}}`+"\n\n")); !errors.As(err, &refused) {
		t.Errorf("an error event: got %v", err)
	}
	if raw, err := message("application/json", []byte(`{"a":1}`)); err != nil || string(raw) != `{"a":1}` {
		t.Errorf("no stream: %s, %v", raw, err)
	}
}
