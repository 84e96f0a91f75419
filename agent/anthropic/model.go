package anthropic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"
	"github.com/tidwall/sjson"

	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
)

// model is the loop's Model over the SDK.
type model struct {
	messages  sdk.MessageService
	maxTokens int64
	retries   int
	host      string
	session   *gateway.Session
}

// errCutOff: the stream ended before the answer did.
var errCutOff = errors.New("the answer broke off before its end")

// Next makes one streaming request. A stream that breaks off is tried again as often
// as the SDK tries a request: nothing of the answer was used.
func (m *model) Next(ctx context.Context, r loop.MessageRequest) (loop.Message, error) {
	body, err := requestBody(r, m.maxTokens)
	if err != nil {
		return loop.Message{}, fmt.Errorf("encode the request: %w", err)
	}
	for try := 0; ; try++ {
		msg, err := m.stream(ctx, body)
		if err == nil {
			return msg, nil
		}
		if try >= m.retries || ctx.Err() != nil || !errors.Is(err, errCutOff) {
			return loop.Message{}, m.classify(ctx, err)
		}
	}
}

func (m *model) stream(ctx context.Context, body json.RawMessage) (loop.Message, error) {
	stream := m.messages.NewStreaming(ctx, param.Override[sdk.MessageNewParams](body))
	defer stream.Close()
	var acc sdk.Message
	begun, whole := false, false
	for stream.Next() {
		event := stream.Current()
		if err := acc.Accumulate(event); err != nil {
			return loop.Message{}, fmt.Errorf("%w: %w", errCutOff, err)
		}
		begun = begun || event.Type == "message_start"
		whole = whole || event.Type == "message_stop"
	}
	if err := stream.Err(); err != nil {
		var api *sdk.Error
		if begun && !errors.As(err, &api) {
			return loop.Message{}, fmt.Errorf("%w: %w", errCutOff, err)
		}
		return loop.Message{}, err
	}
	if !whole {
		return loop.Message{}, errCutOff
	}
	var out loop.Message
	raw := json.RawMessage(acc.RawJSON())
	if err := json.Unmarshal(raw, &out); err != nil {
		return out, fmt.Errorf("%w: %w", errCutOff, err)
	}
	out.Raw = raw
	return out, nil
}

// ephemeral marks the end of what the API should cache.
var ephemeral = json.RawMessage(`{"type":"ephemeral"}`)

// requestBody is the request as JSON. The SDK's parameter types would drop fields
// of content blocks that they do not know; raw JSON keeps them.
func requestBody(r loop.MessageRequest, maxTokens int64) (json.RawMessage, error) {
	type systemBlock struct {
		Type         string          `json:"type"`
		Text         string          `json:"text"`
		CacheControl json.RawMessage `json:"cache_control"`
	}
	messages := append([]loop.Input(nil), r.Messages...)
	for i := len(messages) - 1; i >= 0; i-- {
		if messages[i].Role != "user" || len(messages[i].Content) == 0 {
			continue
		}
		content := append([]json.RawMessage(nil), messages[i].Content...)
		last := len(content) - 1
		marked, err := sjson.SetRawBytes(append([]byte(nil), content[last]...), "cache_control", ephemeral)
		if err != nil {
			return nil, err
		}
		content[last] = marked
		messages[i].Content = content
		break
	}
	body := map[string]any{"model": r.Model, "max_tokens": maxTokens, "messages": messages}
	if r.System != "" {
		body["system"] = []systemBlock{{"text", r.System, ephemeral}}
	}
	if len(r.Tools) > 0 {
		body["tools"] = r.Tools
	}
	return json.Marshal(body)
}
