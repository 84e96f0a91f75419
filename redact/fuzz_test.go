package redact

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzRedactor compares with the specification (so every byte that is not part
// of a secret is kept), cuts the input in two ways, and looks for secrets in
// what is left between the marks.
func FuzzRedactor(f *testing.F) {
	f.Add("hunter2x", "swordfish", []byte("a hunter2x swordfish"), uint16(5))
	f.Add(nasty, "abcd", []byte(goJSON(nasty)+" abcdabc"), uint16(9))
	f.Add(pem, "aaaa", []byte(pem+"aaaaaaa"), uint16(30))
	f.Add("abcdefgh", "efghabcd", []byte("abcdefghabcdefg 6162636465666768 YWJjZGVmZ2g="), uint16(3))
	f.Add("////????>>>>", "n\\r\\n\\", []byte("Ly8vLz8/Pz8+Pj4+ Ly8vLz8_Pz8-Pj4-"), uint16(7))
	f.Add("hunter2hunter2hunter2", "nnnnnnnn", []byte(strings.Repeat("Qn", 16)+`\naHVudGVyMmh1bnRlcjJodW50\r\nZXIy`), uint16(40))
	f.Fuzz(func(t *testing.T, one, two string, in []byte, at uint16) {
		if len(one) > 200 || len(two) > 200 || len(in) > 2000 {
			t.Skip("slow in the specification, and nothing new")
		}
		secrets := named(one, two)
		set, err := New(secrets...)
		if err != nil {
			if msg := err.Error(); len(one) >= 12 && strings.Contains(msg, one) || len(two) >= 12 && strings.Contains(msg, two) {
				t.Fatalf("error holds a secret: %v", err)
			}
			t.Skip("refused")
		}
		want := naive(in, secrets...)
		before := bytes.Clone(in)
		if got := set.Bytes(in); !bytes.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
		if !bytes.Equal(in, before) {
			t.Fatal("the input was changed")
		}
		if _, found := set.Contains(in); found == bytes.Equal(want, in) && !bytes.Contains(in, []byte(Mark)) {
			t.Fatalf("Contains = %v", found)
		}
		for _, step := range []int{1, 1 + int(at)%64} {
			s, out := set.Stream(), []byte(nil)
			for chunk := in; len(chunk) > 0; chunk = chunk[min(step, len(chunk)):] {
				out = s.Append(out, chunk[:min(step, len(chunk))])
			}
			if out = s.AppendRest(out); !bytes.Equal(out, want) {
				t.Fatalf("in steps of %d: got %q\nwant %q", step, out, want)
			}
		}
		for piece := range strings.SplitSeq(string(want), Mark) {
			for _, v := range []string{one, two} {
				if strings.Contains(piece, v) {
					t.Fatalf("%q is left in %q", v, piece)
				}
			}
		}
	})
}
