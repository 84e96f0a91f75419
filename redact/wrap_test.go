package redact

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestError(t *testing.T) {
	t.Parallel()
	set := mustNew(t, "hunter2x")
	cause := &fs.PathError{Op: "open", Path: "/tmp/hunter2x", Err: fs.ErrNotExist}
	err := set.Error(fmt.Errorf("log in with hunter2x: %w", cause))
	want := "log in with " + Mark + ": open /tmp/" + Mark + ": file does not exist"
	if err.Error() != want {
		t.Errorf("Error() = %q, want %q", err, want)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, value := range []any{err, []error{err}, struct{ E error }{err}} {
			if got := fmt.Sprintf(verb, value); set.String(got) != got {
				t.Errorf("%s of %T shows %s", verb, value, got)
			}
		}
	}
	var path *fs.PathError
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &path) || path != cause {
		t.Error("the identity of the error is lost")
	}
	if outer := fmt.Errorf("run step: %w", err); outer.Error() != "run step: "+want {
		t.Errorf("wrapped: %v", outer)
	}
	if set.Error(nil) != nil {
		t.Error("nil is not nil")
	}
}

type stringer struct{ v string }

func (s stringer) String() string { return "stringer " + s.v }

type valuer struct{ v string }

func (v valuer) LogValue() slog.Value {
	return slog.GroupValue(slog.String("inner", v.v), slog.Any("deep", stringer(v)))
}

type marshaler struct{ v string }

func (m marshaler) MarshalText() ([]byte, error) { return []byte("text " + m.v), nil }

type panics struct{ v string }

func (p *panics) Error() string { panic("cannot show " + p.v) }

func TestHandler(t *testing.T) {
	t.Parallel()
	const secret = "hunter2x"
	set := mustNew(t, secret, "12345678", `k":"v`)
	values := map[string]any{
		"string": secret, "error": errors.New(secret), "stringer": stringer{secret}, "pointer": &stringer{secret},
		"valuer": valuer{secret}, "text": marshaler{secret}, "bytes": []byte(secret), "raw": json.RawMessage(`"` + secret + `"`),
		"struct": struct{ A, b string }{secret, secret}, "map": map[string]any{secret: []string{secret}},
		"slice": []any{secret, 1}, "number": 12345678, "float": 12345678.0, "in slice": []int{12345678},
		"across JSON": map[string]string{"k": "v"}, "group": slog.GroupValue(slog.String(secret, secret)),
		"duration": 12345678 * time.Second, "panic": &panics{secret}, "nil": nil, "nil error": (*panics)(nil),
		"func": func() {}, "struct with bytes": struct{ B []byte }{[]byte(secret)}, "hex": hex.EncodeToString([]byte(secret)),
		"unmarshalable": map[string]any{"f": func() {}, "s": secret},
	}
	handlers := map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	}
	for kind, newHandler := range handlers {
		for name, value := range values {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				var out bytes.Buffer
				log := slog.New(Handler(newHandler(&out), set))
				log.With("with", value, secret, 1).WithGroup("g "+secret).Info("message "+secret, "key", value)
				got := out.String()
				if n, found := set.Contains(out.Bytes()); found {
					t.Errorf("%s left in %s", n, got)
				}
				if !strings.Contains(got, "message "+Mark) {
					t.Errorf("message is missing: %s", got)
				}
				if kind == "json" && !json.Valid(out.Bytes()) {
					t.Errorf("not JSON: %s", got)
				}
			})
		}
	}
}

func TestHandlerKeepsTheRest(t *testing.T) {
	t.Parallel()
	set := mustNew(t, "hunter2x")
	log := func(wrap bool) string {
		var out bytes.Buffer
		var h slog.Handler = slog.NewJSONHandler(&out, &slog.HandlerOptions{AddSource: true, Level: slog.LevelWarn})
		if wrap {
			h = Handler(h, set)
		}
		r := slog.NewRecord(time.Unix(1, 0), slog.LevelWarn, "msg", 0)
		r.Add("i", 1, "f", 1.5, "b", true, "d", time.Second, "t", time.Unix(2, 0), "s", []int{1}, "m", map[string]int{"a": 1},
			slog.Group("g", "x", "y"), "e", errors.New("e"))
		if err := h.WithGroup("w").WithAttrs([]slog.Attr{slog.Int("n", 1)}).Handle(context.Background(), r); err != nil {
			t.Error(err)
		}
		if h.Enabled(context.Background(), slog.LevelInfo) {
			t.Error("the level is lost")
		}
		return out.String()
	}
	if got, want := log(true), log(false); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	h := slog.NewTextHandler(&bytes.Buffer{}, nil)
	if Handler(h, nil) != slog.Handler(h) {
		t.Error("an empty set is not free")
	}
}
