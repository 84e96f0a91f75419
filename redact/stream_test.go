package redact

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNothingIsDelayed: what cannot be the start of a secret leaves at once.
func TestNothingIsDelayed(t *testing.T) {
	t.Parallel()
	set := mustNew(t, "hunter2x", "tiger-tiger")
	tests := []struct{ chunk, out, rest string }{
		{"Password: ", "Password: ", ""},
		{"Continue? [y/N] ", "Continue? [y/N] ", ""},
		{"a line\n", "a line\n", ""},
		{"/usr/local/lib/python3/site-packages/x/y\n", "/usr/local/lib/python3/site-packages/x/y\n", ""},
		{"xxhunter2", "xx", "hunter2"},
		{"xxhunter2y", "xxhunter2y", ""},
		{"xxhunter2x", "xx" + Mark, ""},
		{"xxhunter2xh", "xx" + Mark, "h"},
		{"hunter2hunt", "hunter2", "hunt"},
	}
	for _, tt := range tests {
		s := set.Stream()
		if got := string(s.Next([]byte(tt.chunk))); got != tt.out {
			t.Errorf("Next(%q) = %q, want %q", tt.chunk, got, tt.out)
		}
		if got := string(s.Rest()); got != tt.rest {
			t.Errorf("Rest after %q = %q, want %q", tt.chunk, got, tt.rest)
		}
	}
}

// TestHeldIsBounded: never more is held than the longest occurrence less 1.
func TestHeldIsBounded(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("ab", 300)
	set := mustNew(t, secret)
	longest := 0
	for _, a := range set.views {
		if a != nil {
			longest = max(longest, int(slices.Max(a.depth)))
		}
	}
	longest += 4 * (longest/wrapRun + 1) // breaks of a wrapped form
	for _, unit := range []string{"ab", "6162", "YWJhYmFi", strings.Repeat("YWJhYmFi", 4) + `\r\n`, "%61%62"} {
		s := set.Stream()
		for range 20_000 / len(unit) {
			for i := range unit {
				s.Next([]byte(unit[i : i+1]))
				if len(s.held) >= longest {
					t.Fatalf("%q: %d bytes held, longest occurrence has %d", unit, len(s.held), longest)
				}
			}
		}
	}
}

func TestStreamStartsAnewAfterRest(t *testing.T) {
	t.Parallel()
	s := mustNew(t, "hunter2x").Stream()
	var out []byte
	for range 3 {
		for _, chunk := range []string{"hunter2xhun", "ter", "2x-hunter"} {
			out = s.Append(out, []byte(chunk))
		}
		out = append(s.AppendRest(out), '|')
	}
	if want := strings.Repeat(Mark+"-hunter|", 3); string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if got := s.Seen(); !slices.Equal(got, []string{"S0"}) {
		t.Errorf("Seen = %v", got)
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	set := mustNew(t, "hunter2x", "swordfish")
	var out recorder
	w := set.Writer(&out)
	clean := []byte("nothing to see here")
	if n, err := w.Write(clean); n != len(clean) || err != nil || &out.writes[0][0] != &clean[0] {
		t.Errorf("Write = %d, %v; or a clean chunk was copied", n, err)
	}
	if n, err := w.Write([]byte("sword")); n != 5 || err != nil || len(out.writes) != 1 {
		t.Errorf("Write = %d, %v, %d writes", n, err, len(out.writes))
	}
	if w.Seen() != nil {
		t.Error("seen too early")
	}
	if err := w.Flush(); err != nil || string(out.writes[1]) != "sword" {
		t.Errorf("Flush: %v, %q", err, out.writes)
	}
	if _, err := io.WriteString(w, "swordfish"); err != nil || string(out.writes[2]) != Mark {
		t.Errorf("%v, %q", err, out.writes)
	}
	if got := w.Seen(); !slices.Equal(got, []string{"S1"}) {
		t.Errorf("Seen = %v", got)
	}
}

type failing struct {
	n   int
	err error
}

func (f *failing) Write(p []byte) (int, error) { return min(f.n, len(p)), f.err }

func TestWriterKeepsTheFirstError(t *testing.T) {
	t.Parallel()
	cause := errors.New("disk full")
	for _, tt := range []struct {
		w    failing
		want error
	}{{failing{0, cause}, cause}, {failing{2, nil}, io.ErrShortWrite}} {
		w := mustNew(t, "hunter2x").Writer(&tt.w)
		if _, err := w.Write([]byte("hello")); !errors.Is(err, tt.want) {
			t.Errorf("Write: %v, want %v", err, tt.want)
		}
		tt.w = failing{100, nil}
		if _, err := w.Write([]byte("hello")); !errors.Is(err, tt.want) {
			t.Errorf("second Write: %v, want %v", err, tt.want)
		}
		if err := w.Close(); !errors.Is(err, tt.want) {
			t.Errorf("Close: %v, want %v", err, tt.want)
		}
	}
}

// TestNoAllocations: clean chunks cost none (invariant 4).
func TestNoAllocations(t *testing.T) {
	set := mustNew(t, benchSecrets(5)...)
	w := set.Writer(io.Discard)
	chunk := bytes.Repeat([]byte("2026-01-02 ok some line of output sk sk-a s\n"), 1000)
	if _, err := w.Write(chunk); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = w.Write(chunk) }); n != 0 {
		t.Errorf("%v allocations per clean chunk", n)
	}
	if n := testing.AllocsPerRun(100, func() { set.String("step build: exit status 1") }); n != 0 {
		t.Errorf("%v allocations per clean string", n)
	}
}

// cpuTime is what this process has computed so far: unlike the time on the clock, it
// does not grow while others use the machine.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestHostileInputIsLinear compares the time per byte of an input with that of
// one of 16 times the length, and of short writes; a quadratic search takes 16
// times as long. The bound leaves room for a busy machine.
func TestHostileInputIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time")
	}
	for _, c := range hostile() {
		t.Run(c.name, func(t *testing.T) {
			set := mustNew(t, c.secrets...)
			best := func(in []byte, step int) time.Duration {
				least := time.Hour
				for range 3 {
					start, s := cpuTime(t), set.Stream()
					for chunk := in; len(chunk) > 0; chunk = chunk[min(step, len(chunk)):] {
						s.Next(chunk[:min(step, len(chunk))])
					}
					least = min(least, cpuTime(t)-start)
				}
				return least
			}
			text := c.text(1 << 20)
			short, long := best(text[:1<<16], 1<<20), best(text, 1<<20)
			if long > 16*6*short+time.Millisecond {
				t.Errorf("64 KB in %v, 1 MB in %v", short, long)
			}
			if cut := best(text, 64); cut > 20*long+20*time.Millisecond {
				t.Errorf("1 MB in %v, in writes of 64 bytes in %v", long, cut)
			}
		})
	}
}
