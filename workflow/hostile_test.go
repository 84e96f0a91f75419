package workflow

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostile are texts that were written to hurt the parser: each is refused with a
// clear message (or taken), in bounded time and memory.
func hostile() []struct{ name, text, want string } {
	const mib = 1 << 20
	repeat := strings.Repeat
	lines := func(n int, f func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(f(i))
		}
		return b.String()
	}
	step := "steps: [{id: a, run: x}]\n"
	head := "name: n\n" + step
	laughs := "name: n\na0: &a0 [x]\n" + lines(30, func(i int) string {
		return fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}) + step
	return []struct{ name, text, want string }{
		{"billion laughs", laughs, "aliases expand the file beyond 200000 values"},
		{"laughs in env", "name: n\nenv: &e {A: b}\nsteps:\n" + lines(10000, func(i int) string { return fmt.Sprintf("- {id: s%d, run: x, env: *e}\n", i) }), ""},
		{"quadratic aliases", "name: n\nx: &x [" + repeat("y,", 5000) + "]\nz: [" + repeat("*x,", 5000) + "]\n" + step, "aliases expand"},
		{"4 MiB of [", head + "env: " + repeat("[", 4*mib-100), "not YAML"},
		{"4 MiB of {", head + "env: " + repeat("{", 4*mib-100), "not YAML"},
		{"4 MiB of {a:", head + "env: " + repeat("{a: ", mib-50), "not YAML"},
		{"9000 nested lists", head + "env: " + repeat("[", 9000) + repeat("]", 9000), "nested deeper than 32 levels"},
		{"4 MiB of - ", "name: n\nsteps:\n" + repeat("- ", 2*mib-50), "not YAML"},
		{"nested by indentation", "name: n\nsteps:\n" + lines(2500, func(i int) string { return repeat(" ", i) + "a:\n" }), "nested deeper than 32 levels"},
		{"40,000 duplicate anchors", "name: n\nenv:\n" + lines(40000, func(i int) string { return fmt.Sprintf("  A%d: &a x\n", i) }) + step, ""},
		{"100,000 anchors", "name: n\nenv:\n" + lines(100000, func(i int) string { return fmt.Sprintf("  A%d: &a%d x\n", i, i) }) + step, ""},
		{"cyclic alias", "name: n\nenv: &e {A: *e}\n" + step, "the value of &e contains itself"},
		{"cyclic through two", "name: n\nenv: &a [&b [*a, *b]]\n" + step, "contains itself"},
		{"cyclic step", "name: n\nsteps: &s [{id: a, run: x}, *s]\n", "contains itself"},
		{"NUL byte", "name: n\x00\n" + step, "the file holds a NUL byte"},
		{"control bytes", "name: \x01\x02\n" + step, "not YAML"},
		{"byte order mark", "\ufeff" + head, ""},
		{"byte order mark in the middle", "name: n\n\ufeffsteps: []\n", `unknown key "\ufeffsteps"`},
		{"UTF-16", "\xff\xfen\x00a\x00m\x00e\x00:\x00 \x00n\x00\n\x00", "the file holds a NUL byte"},
		{"not UTF-8", "name: \xff\n" + step, "the file is not UTF-8"},
		{"surrogates", "name: \xed\xa0\x80\n" + step, "the file is not UTF-8"},
		{"overlong", "name: \xc0\xaf\n" + step, "the file is not UTF-8"},
		{"10 MB scalar", "name: " + repeat("x", 10*mib) + "\n" + step, "more than 4 MiB"},
		{"4 MB scalar", "name: " + repeat("x", 4*mib-100) + "\n" + step, ""},
		{"4 MB of words", "name: n\nsteps: [{id: a, run: " + repeat("word ", 800000) + "}]\n", ""},
		{"4 MB quoted lines", "name: n\nsteps: [{id: a, run: \"" + repeat("x\n  ", mib-100) + "\"}]\n", ""},
		{"4 MB block", "name: n\nsteps:\n- id: a\n  run: |\n" + repeat("    x\n", 690000), ""},
		{"4 MB comment lines", "name: n\n" + repeat("# c\n", mib-100) + step, ""},
		{"comments in a list", "name: n\nsteps:\n" + repeat("# c\n", 500000) + "- {id: a, run: x}\n" + repeat("# c\n", 500000), ""},
		{"one long comment", "name: n # " + repeat("c", 4*mib-100) + "\n" + step, ""},
		{"1,000,000 unknown keys", "name: n\n" + lines(380000, func(i int) string { return fmt.Sprintf("k%d: 1\n", i) }) + step, "unknown key"},
		{"one key 500,000 times", "name: n\n" + repeat("name: 1\n", 500000) + step, "here a second time"},
		{"10,001 steps", "name: n\nsteps:\n" + lines(10001, func(i int) string { return fmt.Sprintf("- {id: s%d, run: x}\n", i) }), "more than 10000 steps"},
		{"1,000,000 empty steps", "name: n\nsteps: [" + repeat("{},", mib) + "]\n", "more than 10000 steps"},
		{"10,000 bad references", "name: n\nsteps:\n" + lines(10000, func(i int) string {
			return fmt.Sprintf("- {id: step_number_%d, run: x, needs: [step_numbr_%d], if: steps.step_numer_%d.status == ''}\n", i, i, i)
		}), "there is no step"},
		{"10,000 ids the same", "name: n\nsteps:\n" + repeat("- {id: a, run: x}\n", 10000), "another step"},
		{"everyone needs everyone above", "name: n\nsteps:\n" + lines(700, func(i int) string {
			return fmt.Sprintf("- {id: s%d, run: x, needs: [%s]}\n", i, lines(i, func(j int) string { return fmt.Sprintf("s%d,", j) }))
		}), ""},
		{"a cycle of 10,000", "name: n\nsteps:\n" + lines(10000, func(i int) string { return fmt.Sprintf("- {id: s%d, run: x, needs: [s%d]}\n", i, (i+1)%10000) }), "wait for each other"},
		{"references against the order", "name: n\nsteps:\n" + lines(5000, func(i int) string {
			return fmt.Sprintf("- {id: s%d, run: x, needs: [%s], if: steps.s0.status == steps.s%d.status}\n", i, lines(min(i, 2), func(j int) string { return fmt.Sprintf("s%d,", i-1-j) }), max(0, i-1))
		}), "cannot read itself"},
		{"expression of 4 MB", "name: n\nsteps: [{id: a, run: x, if: \"" + repeat("1+", 2*mib-100) + "1 > 0\"}]\n", "more than 4000 characters"},
		{"parentheses", "name: n\nsteps: [{id: a, run: x, if: \"" + repeat("(", mib) + "\"}]\n", "more than 4000 characters"},
		{"unary operators", "name: n\nsteps: [{id: a, run: x, if: \"" + repeat("!", mib) + "true\"}]\n", "more than 4000 characters"},
		{"3900 parentheses", "name: n\nsteps: [{id: a, run: x, if: \"" + repeat("(", 3900) + "\"}]\n", "[expression]"},
		{"3900 operators", "name: n\nsteps: [{id: a, run: x, if: \"" + repeat("!", 3900) + "true\"}]\n", "[expression]"},
		{"1,000,000 expressions", "name: n\nsteps: [{id: a, run: \"" + repeat("${{1}}", 600000) + "\"}]\n", "more than 100000 expressions"},
		{"unclosed expressions", "name: n\nsteps: [{id: a, run: \"" + repeat("${{", mib) + "\"}]\n", "never closed"},
		{"pattern of an input", "name: n\ninputs: {a: {pattern: '" + repeat("(a*)*", 1000) + "{1000}'}}\n" + step, "pattern"},
		{"100,000 inputs", "name: n\ninputs:\n" + lines(100000, func(i int) string { return fmt.Sprintf("  i%d: {}\n", i) }) + step, ""},
		{"tags", "name: !!binary aGVsbG8=\nsteps: [!!python/object:os.system {id: a, run: x}]\n", ""},
		{"documents", repeat("---\nname: n\n", 100000), "second document"},
		{"escapes", "name: \"\\x00\\x1b[2J\\u202e\"\n" + step, ""},
		{"terminal codes", "name: n\n\x1b[2J: x\n" + step, "not YAML"},
		{"directives", repeat("%YAML 1.1\n", 100000) + head, "not YAML"},
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

// The bounds are far above what is measured (the figures are logged), because
// the test shares its machine.
const (
	hostileTime   = 10 * time.Second
	hostileMemory = 2 << 30 // allocated in all, not at once
)

func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Log("heavy texts are left out with -short")
	}
	for _, h := range hostile() {
		if testing.Short() && len(h.text) > 1<<20 {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := cpuTime(t)
			_, err := Parse("h.yaml", []byte(h.text), ParseOptions{})
			took := cpuTime(t) - start
			runtime.ReadMemStats(&after)
			used := after.TotalAlloc - before.TotalAlloc
			var bad *Diagnostics
			var out bytes.Buffer
			if errors.As(err, &bad) {
				if err := bad.Render(&out, false); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%7.1f KiB of text: %6.0f ms, %6.1f MiB allocated, %d lines of answer", float64(len(h.text))/1024, float64(took.Microseconds())/1000, float64(used)/(1<<20), strings.Count(out.String(), "\n"))
			switch {
			case h.want == "" && err != nil:
				t.Errorf("refused: %.300s", out.String())
			case h.want != "" && !strings.Contains(out.String(), h.want):
				t.Errorf("the answer does not say %q: %.300s", h.want, out.String())
			}
			if took > hostileTime || used > hostileMemory {
				t.Errorf("took %v and %d MiB", took, used>>20)
			}
			if out.Len() > 200<<10 {
				t.Errorf("the answer has %d KiB", out.Len()>>10)
			}
			if i := strings.IndexFunc(out.String(), func(r rune) bool { return r < 0x20 && r != '\n' && r != '\t' || r == 0x7f }); i >= 0 {
				t.Errorf("the answer holds a control character: %q", out.String()[i:])
			}
		})
	}
}
