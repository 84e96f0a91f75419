package report

import (
	"bytes"
	"strings"
	"testing"
)

func scrubAll(parts [][]byte, sgr bool) string {
	s := scrubber{prefix: "p| ", sgr: sgr}
	var out []byte
	for _, p := range parts {
		out = s.write(out, p)
	}
	return string(s.flush(out, true))
}

func TestScrub(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, plain, color string }{
		"text":                 {"a\nb\n", "p| a\np| b\n", ""},
		"no line end":          {"a", "p| a\n", ""},
		"empty line":           {"\n", "p| \n", ""},
		"tab":                  {"\ta\n", "p| \ta\n", ""},
		"crlf":                 {"a\r\nb\r\r\n", "p| a\np| b\n", ""},
		"progress by cr":       {"1%\r2%\r", "p| 1%\np| 2%\n", ""},
		"colour":               {"\x1b[31mr\x1b[0m\n", "p| r\n", "p| \x1b[31mr\x1b[0m\n"},
		"colour over the line": {"\x1b[1;31mr\nx\n", "p| r\np| x\n", "p| \x1b[1;31mr\x1b[0m\np| x\n"},
		"keyboard mode":        {"\x1b[>4;2mx\n", "p| x\n", "p| x\n"},
		"clear and home":       {"a\x1b[2J\x1b[Hb\n", "p| ab\n", ""},
		"title, BEL":           {"a\x1b]0;evil\x07b\n", "p| ab\n", ""},
		"title, ST":            {"a\x1b]0;evil\x1b\\b\n", "p| ab\n", ""},
		"clipboard":            {"\x1b]52;c;ZXZpbA==\x07x\n", "p| x\n", ""},
		"hyperlink":            {"\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\\n", "p| text\n", ""},
		"dcs":                  {"\x1bP$q\"p\x1b\\x\n", "p| x\n", ""},
		"reset terminal":       {"\x1bcx\n", "p| x\n", ""},
		"charset":              {"\x1b(0x\n", "p| x\n", ""},
		"C1 CSI":               {"a\u009b2Jb\n", "p| ab\n", ""},
		"C1 OSC":               {"a\u009d0;evil\x07b\n", "p| ab\n", ""},
		"raw C1 byte":          {"a\x9b2Jb\n", "p| a\\x9b2Jb\n", ""},
		"bell, backspace, del": {"a\x07\x08\x7f\n", "p| a\\x07\\x08\\x7f\n", ""},
		"NUL":                  {"\x00\n", "p| \\x00\n", ""},
		"latin-1":              {"gr\xfc\xdfe\n", "p| gr\\xfc\\xdfe\n", ""},
		"wide":                 {"日本語 ä\n", "p| 日本語 ä\n", ""},
		"endless OSC":          {"\x1b]0;" + strings.Repeat("x", 5000) + "\nnext\n", "", ""},
		"OSC ends at the line": {"\x1b]0;never closed\nnext\n", "p| \np| next\n", ""},
		"escape escape":        {"\x1b\x1b[2Jx\n", "p| x\n", ""},
		"escape at the end":    {"x\x1b", "p| x\n", ""},
		"escape, then newline": {"\x1b\nx\n", "p| \np| x\n", ""},
		"half a character":     {"x\xe6\x97", "p| x\\xe6\\x97\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := [][]byte{[]byte(tc.in)}
			if got := scrubAll(whole, false); tc.plain != "" && got != tc.plain {
				t.Errorf("got %q, want %q", got, tc.plain)
			}
			if got := scrubAll(whole, true); tc.color != "" && got != tc.color {
				t.Errorf("with colour: got %q, want %q", got, tc.color)
			}
			if name == "endless OSC" && !strings.HasSuffix(scrubAll(whole, false), "p| next\n") {
				t.Error("what follows is lost")
			}
			for _, sgr := range []bool{false, true} {
				checkSafe(t, scrubAll(whole, sgr), sgr)
				checkSplits(t, []byte(tc.in), sgr)
			}
		})
	}
}

// checkSplits: cutting the stream anywhere, or into bytes, changes nothing.
func checkSplits(t *testing.T, in []byte, sgr bool) {
	t.Helper()
	want := scrubAll([][]byte{in}, sgr)
	var single [][]byte
	for i := range in {
		single = append(single, in[i:i+1])
		if len(in) < 200 {
			if got := scrubAll([][]byte{in[:i], in[i:]}, sgr); got != want {
				t.Fatalf("cut at %d: %q, whole: %q", i, got, want)
			}
		}
	}
	if got := scrubAll(single, sgr); got != want {
		t.Fatalf("byte by byte: %q, whole: %q", got, want)
	}
}

func FuzzScrub(f *testing.F) {
	f.Add([]byte("a\x1b[31mb\x1b]0;t\x07\r\n\xc2\x9b2J\xe6\x97\xa5\xff"), true)
	f.Add([]byte("\r\r\n\x1b\x1b\x1b(\x1bP\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, sgr bool) {
		checkSplits(t, in, sgr)
		out := scrubAll([][]byte{in}, sgr)
		checkSafe(t, out, sgr)
		for _, l := range strings.SplitAfter(out, "\n") {
			if l != "" && (!strings.HasPrefix(l, "p| ") || !strings.HasSuffix(l, "\n")) {
				t.Fatalf("line %q of %q", l, in)
			}
		}
		if c := clean(string(in)); strings.ContainsAny(c, "\n\t\x1b\r") {
			t.Fatalf("clean: %q", c)
		}
	})
}

// TestSpecial compares the eight-bytes-at-a-time loop with the obvious one.
func TestSpecial(t *testing.T) {
	t.Parallel()
	for at := range 20 {
		for c := range 256 {
			p := bytes.Repeat([]byte{' '}, 20)
			p[at] = byte(c)
			want := 20
			if c < 0x20 || c >= 0x7f {
				want = at
			}
			if got := special(p); got != want {
				t.Fatalf("byte %#x at %d: got %d, want %d", c, at, got, want)
			}
			p[0] = '~' // next to 0x7f
			if at > 0 && special(p) != want {
				t.Fatalf("byte %#x at %d after ~", c, at)
			}
		}
	}
}
