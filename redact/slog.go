package redact

import (
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
)

// Handler returns a slog.Handler that hands records to next without secrets:
// neither in the message, nor in the key or value of an attribute, nor in the
// name of a group. A value that is not of a basic kind is rendered first, since
// nobody knows what its methods print later. With an empty Set it is next.
func Handler(next slog.Handler, set *Set) slog.Handler {
	if set.empty() {
		return next
	}
	return &handler{next, set}
}

type handler struct {
	next slog.Handler
	set  *Set
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, h.set.String(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.attr(a))
		return true
	})
	return h.set.Error(h.next.Handle(ctx, clean))
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.next.WithAttrs(h.attrs(attrs)), h.set}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(h.set.String(name)), h.set}
}

func (h *handler) attrs(attrs []slog.Attr) []slog.Attr {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = h.attr(a)
	}
	return clean
}

func (h *handler) attr(a slog.Attr) slog.Attr {
	return slog.Attr{Key: h.set.String(a.Key), Value: h.value(a.Value)}
}

func (h *handler) value(v slog.Value) slog.Value {
	v = v.Resolve()
	switch v.Kind() {
	case slog.KindString:
		return slog.StringValue(h.set.String(v.String()))
	case slog.KindGroup:
		return slog.GroupValue(h.attrs(v.Group())...)
	case slog.KindAny:
		return h.any(v.Any())
	}
	// A PIN of digits may be logged as a number, and JSON writes some numbers in
	// another way than text does.
	texts := []string{v.String()}
	switch v.Kind() {
	case slog.KindFloat64:
		texts = append(texts, strconv.FormatFloat(v.Float64(), 'f', -1, 64))
	case slog.KindDuration:
		texts = append(texts, strconv.FormatInt(int64(v.Duration()), 10))
	}
	for _, text := range texts {
		if clean := h.set.String(text); clean != text {
			return slog.StringValue(clean)
		}
	}
	return v
}

// any renders a value as the handlers of slog do, without secrets.
func (h *handler) any(v any) (clean slog.Value) {
	defer func() {
		if p := recover(); p != nil {
			// As slog does: a faulty value must not take the program down. What
			// it panicked with may hold a secret as well.
			clean = slog.StringValue(h.set.String(fmt.Sprintf("!PANIC: %v", p)))
		}
	}()
	switch v := v.(type) {
	case nil:
		return slog.AnyValue(nil)
	case *slog.Source:
		return slog.AnyValue(v)
	case error:
		return slog.StringValue(h.set.String(v.Error()))
	case []byte:
		return slog.StringValue(string(h.set.Bytes(v)))
	case encoding.TextMarshaler:
		if text, err := v.MarshalText(); err == nil {
			return slog.StringValue(string(h.set.Bytes(text)))
		}
	case fmt.Stringer:
		return slog.StringValue(h.set.String(v.String()))
	}
	// A RawMessage keeps its structure in JSON and is text elsewhere.
	if text, err := json.Marshal(v); err == nil {
		if text = h.set.Bytes(text); json.Valid(text) {
			return slog.AnyValue(json.RawMessage(text))
		}
		return slog.StringValue(string(text))
	}
	return slog.StringValue(h.set.String(fmt.Sprintf("%+v", v)))
}
