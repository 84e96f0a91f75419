package claudecode

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"

	sdk "github.com/anthropics/anthropic-sdk-go"
)

// maxAnswer bounds one line of an answer; the gateway keeps no longer ones.
const maxAnswer = 64 << 20

var errNoAnswer = errors.New("the answer broke off before its end")

func brokenOff(err error) error {
	if err == nil {
		return errNoAnswer
	}
	return fmt.Errorf("%w: %w", errNoAnswer, err)
}

// streamError is an error event in an answer that had begun.
type streamError struct{ body []byte }

func (e *streamError) Error() string { return "the answer ended with an error event" }

// message is a whole answer, from its events or as it is.
func message(contentType string, body []byte) (json.RawMessage, error) {
	if kind, _, _ := mime.ParseMediaType(contentType); kind != "text/event-stream" {
		if !json.Valid(body) {
			return nil, errNoAnswer
		}
		return body, nil
	}
	var acc sdk.Message
	whole := false
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		var kind struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(data, &kind); err != nil {
			return nil, brokenOff(err)
		}
		switch kind.Type {
		case "error":
			return nil, &streamError{body: bytes.Clone(data)}
		case "message_start", "message_delta", "message_stop", "content_block_start", "content_block_delta", "content_block_stop":
		default:
			continue // ping, and what is newer than us
		}
		var event sdk.MessageStreamEventUnion
		if err := json.Unmarshal(data, &event); err != nil {
			return nil, brokenOff(err)
		}
		if err := acc.Accumulate(event); err != nil {
			return nil, brokenOff(err)
		}
		whole = whole || kind.Type == "message_stop"
	}
	if !whole {
		return nil, brokenOff(lines.Err())
	}
	raw := json.RawMessage(acc.RawJSON())
	if !json.Valid(raw) {
		return nil, fmt.Errorf("%w: it does not make a message", errNoAnswer)
	}
	return raw, nil
}
