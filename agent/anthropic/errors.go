package anthropic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	sdk "github.com/anthropics/anthropic-sdk-go"

	"flowrun.dev/flow/agent"
	"flowrun.dev/flow/agent/gateway"
	"flowrun.dev/flow/agent/loop"
)

// statuses maps what the API answers to an error class; 5xx and what is not listed
// is infrastructure. A stream's error event has status 200 and its type only.
var statuses = map[int]agent.Class{
	http.StatusBadRequest: agent.ClassInvalid, http.StatusUnauthorized: agent.ClassInvalid, http.StatusPaymentRequired: agent.ClassInvalid,
	http.StatusForbidden: agent.ClassInvalid, http.StatusNotFound: agent.ClassInvalid, http.StatusRequestEntityTooLarge: agent.ClassInvalid,
	http.StatusUnprocessableEntity: agent.ClassInvalid,
	http.StatusTooManyRequests:     agent.ClassRateLimit, 529: agent.ClassRateLimit,
}

var errorTypes = map[string]agent.Class{
	"invalid_request_error": agent.ClassInvalid, "authentication_error": agent.ClassInvalid, "permission_error": agent.ClassInvalid,
	"billing_error": agent.ClassInvalid, "not_found_error": agent.ClassInvalid, "request_too_large": agent.ClassInvalid,
	"rate_limit_error": agent.ClassRateLimit, "overloaded_error": agent.ClassRateLimit,
}

var hints = map[string]string{
	"authentication_error": "check ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN",
	"permission_error":     "the key may not use this model or feature",
	"not_found_error":      "check the step's model, and ANTHROPIC_BASE_URL",
	"request_too_large":    "the conversation is too large; give the step a smaller task",
	"billing_error":        "check the account's billing",
}

// classify turns the SDK's error into ours. The SDK's own text holds the whole
// answer; only its type and message are kept.
func (m *model) classify(ctx context.Context, err error) *agent.Error {
	if ctx.Err() != nil {
		return &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("ask the model: %w", context.Cause(ctx))}
	}
	var api *sdk.Error
	if !errors.As(err, &api) {
		return &agent.Error{Class: agent.ClassInfrastructure, Err: fmt.Errorf("ask the model at %s: %w", m.host, err),
			Hint: "check the network and ANTHROPIC_BASE_URL; flow resume goes on"}
	}
	if api.Response != nil && api.Response.Header.Get(gateway.RefusedHeader) != "" {
		if refused := m.session.Refused(); refused != nil {
			return refused
		}
	}
	kind, message := details(api)
	if tooLong(api.StatusCode, message) {
		return &agent.Error{Class: agent.ClassFailed, Hint: hints["request_too_large"], Err: fmt.Errorf("ask the model at %s: %w (%s)", m.host, loop.ErrWindow, describe(api.StatusCode, kind, message, api.RequestID))}
	}
	var h http.Header
	if api.Response != nil {
		h = api.Response.Header
	}
	return answered(m.host, api.StatusCode, kind, message, api.RequestID, h)
}

// tooLong says whether a request was refused for its length; the API tells it in words.
func tooLong(status int, message string) bool {
	return status == http.StatusRequestEntityTooLarge ||
		status == http.StatusBadRequest && (strings.Contains(message, "prompt is too long") || strings.Contains(message, "exceed context limit"))
}

// HTTPError is the class and text of an answer that the API gave instead of a
// message; body is its JSON. A status below 300 is an error event within a stream.
func HTTPError(status int, h http.Header, body []byte) *agent.Error {
	var b struct {
		Error     struct{ Type, Message string }
		RequestID string `json:"request_id"`
	}
	_ = json.Unmarshal(body, &b) // what is not there is not said
	id := b.RequestID
	if id == "" {
		id = h.Get("request-id")
	}
	return answered("", status, b.Error.Type, b.Error.Message, id, h)
}

func answered(host string, status int, kind, message, requestID string, h http.Header) *agent.Error {
	class, known := statuses[status]
	if status < 300 { // an error event in the middle of a stream
		class, known = errorTypes[kind]
	}
	if !known {
		class = agent.ClassInfrastructure
	}
	at := "ask the model"
	if host != "" {
		at += " at " + host
	}
	out := &agent.Error{Class: class, Hint: hints[kind], Err: fmt.Errorf("%s: %s", at, describe(status, kind, message, requestID))}
	if class == agent.ClassRateLimit {
		out.RetryAfter = retryAfter(h, time.Now())
	}
	return out
}

func details(api *sdk.Error) (kind, message string) {
	var body struct {
		Error struct{ Type, Message string }
	}
	if json.Unmarshal([]byte(api.RawJSON()), &body) == nil && body.Error.Type != "" {
		return body.Error.Type, body.Error.Message
	}
	return string(api.Type()), ""
}

func describe(status int, kind, message, requestID string) string {
	text := "it broke off with an error"
	if status >= 300 {
		text = fmt.Sprintf("HTTP %d", status)
		if name := http.StatusText(status); name != "" {
			text += " " + name
		}
	}
	if kind != "" {
		text += ": " + kind
	}
	if r := []rune(message); len(r) > 500 {
		message = string(r[:500]) + "…"
	}
	if message != "" {
		text += ": " + message
	}
	if requestID != "" {
		text += " (request " + requestID + ")"
	}
	return text
}

// maxRetryAfter bounds what a server may ask for; a day is longer than any limit.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads Retry-After: seconds, or a date. 0 when there is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	var d time.Duration
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		d = time.Duration(min(s, maxRetryAfter.Seconds()) * float64(time.Second))
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
