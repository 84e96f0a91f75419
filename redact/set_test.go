package redact

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, value, want string }{
		{"empty", "", "empty"},
		{"short", "xq9", "fewer than 4 bytes"},
		{"short but for white space", " xq9\n\t", "fewer than 4 bytes"},
		{"white space", "        ", "fewer than 4 bytes"},
		{"mark", "redacted", "part of the mark"},
		{"stars", "****", ""}, // longer than any run of stars in Mark
		{"part of mark", "***RE", "part of the mark"},
		{"huge", strings.Repeat("xq9", MaxLength), "more than 16384 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := New(Secret{"GOOD", "good-value"}, Secret{"BAD_ONE", tt.value})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), `"BAD_ONE"`) {
				t.Fatalf("error %v, want %q with the name", err, tt.want)
			}
			if strings.Contains(err.Error(), "xq9") || strings.Contains(err.Error(), "good-value") {
				t.Fatalf("error %v holds a value", err)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		t.Parallel()
		_, err := New(Secret{"ONE", ""}, Secret{"TWO", "x"})
		if err == nil || !strings.Contains(err.Error(), "ONE") || !strings.Contains(err.Error(), "TWO") {
			t.Fatalf("error %v, want both names", err)
		}
	})
}

func TestSecretPrintsItsNameOnly(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		got := fmt.Sprintf(verb, []Secret{{"TOKEN", "hunter2x"}})
		if !strings.Contains(got, "TOKEN") || mustNew(t, "hunter2x").String(got) != got {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestEmptySet(t *testing.T) {
	t.Parallel()
	empty, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []*Set{nil, empty} {
		in := []byte("password=hunter2x")
		if got := set.Bytes(in); &got[0] != &in[0] || set.String("x") != "x" || set.Error(nil) != nil {
			t.Error("an empty set changed its input")
		}
		if _, found := set.Contains(in); found {
			t.Error("an empty set contains something")
		}
		var out recorder
		w := set.Writer(&out)
		if n, err := w.Write(in); n != len(in) || err != nil || &out.writes[0][0] != &in[0] {
			t.Errorf("Write = %d, %v; or the input was copied", n, err)
		}
		if err := w.Close(); err != nil || len(out.writes) != 1 {
			t.Errorf("Close: %v, %d writes", err, len(out.writes))
		}
	}
}

// recorder keeps the slices that it is given, without copying.
type recorder struct{ writes [][]byte }

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, p)
	return len(p), nil
}

func TestBytesLeavesItsArgumentAlone(t *testing.T) {
	t.Parallel()
	set := mustNew(t, "hunter2x")
	clean := []byte("nothing here, hunter2")
	if got := set.Bytes(clean); &got[0] != &clean[0] || len(got) != len(clean) {
		t.Error("clean input was copied")
	}
	in := []byte("a hunter2x b")
	if got := set.Bytes(in); string(got) != "a "+Mark+" b" || string(in) != "a hunter2x b" {
		t.Errorf("got %q, input now %q", got, in)
	}
}

func TestContains(t *testing.T) {
	t.Parallel()
	set, err := New(Secret{"FIRST", "hunter2x"}, Secret{"SECOND", "swordfish"})
	if err != nil {
		t.Fatal(err)
	}
	far := bytes.Repeat([]byte("."), 64<<10-3) // the secret crosses a step of the search
	for in, want := range map[string]string{
		"": "", "hunter2 x": "", "a SWORDFISH": "SECOND", "swordfish hunter2x": "FIRST",
		string(far) + "swordfish": "SECOND", string(far) + "swordfis": "",
	} {
		if name, found := set.Contains([]byte(in)); name != want || found != (want != "") {
			t.Errorf("Contains(%.20q, %d bytes) = %q, %v, want %q", in, len(in), name, found, want)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	set := mustNew(t, "hunter2x", nasty, pem)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				if got := set.String("x hunter2x " + goJSON(nasty)); got != "x "+Mark+" "+Mark {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	group.Wait()
}
