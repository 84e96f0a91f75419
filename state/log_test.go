package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flowrun.dev/flow/engine"
)

func readLog(t testing.TB, s *Store, ref string) (out, errs []byte, err error) {
	t.Helper()
	l, err := s.OpenLogReader(t.Context(), ref)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	for {
		rec, err := l.Next()
		if errors.Is(err, io.EOF) {
			return out, errs, nil
		}
		if err != nil {
			return out, errs, err
		}
		if rec.Stream == Stdout {
			out = append(out, rec.Data...)
		} else {
			errs = append(errs, rec.Data...)
		}
	}
}

// TestLog: what was written comes back, at every stage of a log's life, whether
// it ends up as a row or as a file.
func TestLog(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("a line that repeats itself\n"), 40_000)
	for _, c := range []struct {
		name string
		out  [][]byte
		errs [][]byte
		file bool
	}{
		{"one byte", [][]byte{{0}}, nil, false},
		{"both", [][]byte{[]byte("out\n"), []byte("more")}, [][]byte{[]byte("err\n")}, false},
		{"long text is short when stored", [][]byte{long}, nil, false},
		{"noise", [][]byte{noise(700_000), noise(10)}, [][]byte{noise(300_000)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			o := create(t, s)
			w, err := s.OpenLog(o.RunID(), "build", 1)
			must(t, err)
			var wg sync.WaitGroup
			for stream, parts := range map[Stream][][]byte{Stdout: c.out, Stderr: c.errs} {
				wg.Go(func() {
					for _, p := range parts {
						if err := w.Write(stream, p); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			wantOut, wantErr := bytes.Join(c.out, nil), bytes.Join(c.errs, nil)
			ref := LogRef(o.RunID(), "build", 1)
			check := func(when string) {
				t.Helper()
				out, errs, err := readLog(t, s, ref)
				must(t, err)
				if !bytes.Equal(out, wantOut) || !bytes.Equal(errs, wantErr) {
					t.Errorf("%s: %d and %d bytes came back, want %d and %d", when, len(out), len(errs), len(wantOut), len(wantErr))
				}
				for _, limit := range []int{1, 100, 64 << 10, 1 << 20} {
					tail, err := s.Tail(t.Context(), ref, false, limit)
					must(t, err)
					if tail != string(wantOut[max(0, len(wantOut)-limit):]) {
						t.Errorf("%s: the last %d bytes are wrong", when, limit)
					}
				}
			}
			check("while it grows")
			got, err := w.Finish()
			must(t, err)
			if got != ref {
				t.Errorf("the ref is %q, want %q", got, ref)
			}
			check("finished")
			put(t, o, started("build", 1))
			f := finished("build", 1, engine.StepSucceeded)
			f.Outcome.Log = ref
			put(t, o, f)
			check("appended")
			_, err = os.Stat(s.logPath(w.name))
			if c.file != (err == nil) {
				t.Errorf("its file: %v", err)
			}
			if err := w.Write(Stdout, []byte("late")); err == nil {
				t.Error("a write after Finish was taken")
			}
		})
	}
}

func TestLogSilent(t *testing.T) {
	t.Parallel()
	s := open(t)
	w, err := s.OpenLog("run", "build", 1)
	must(t, err)
	must(t, w.Write(Stdout, nil))
	ref, err := w.Finish()
	must(t, err)
	if ref != "" {
		t.Errorf("the ref of nothing is %q", ref)
	}
	if _, err := os.Stat(s.RunDir("run")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a silent step made a directory: %v", err)
	}
	if _, err := s.OpenLogReader(t.Context(), LogRef("run", "build", 1)); !errors.Is(err, ErrNotFound) {
		t.Errorf("reading it: %v", err)
	}
	if tail, err := s.Tail(t.Context(), "", true, 10); tail != "" || err != nil {
		t.Errorf("the tail of nothing: %q, %v", tail, err)
	}
}

// TestLogTorn: of an unfinished log, cut anywhere, every whole record is read and
// nothing else; a finished one that is damaged is an error.
func TestLogTorn(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	w, err := s.OpenLog(o.RunID(), "build", 1)
	must(t, err)
	parts := [][]byte{[]byte("first\n"), []byte("second\n"), bytes.Repeat([]byte("third\n"), 5000)}
	var ends []int64
	for _, p := range parts {
		must(t, w.Write(Stdout, p))
		ends = append(ends, w.size)
	}
	path := s.logPath(w.name)
	whole, err := os.ReadFile(path)
	must(t, err)
	ref := LogRef(o.RunID(), "build", 1)
	for cut := range len(whole) {
		must(t, os.WriteFile(path, whole[:cut], 0o600))
		var want []byte
		for i, end := range ends {
			if int64(cut) >= end {
				want = append(want, parts[i]...)
			}
		}
		got, _, err := readLog(t, s, ref)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("cut at %d: %d bytes, %v; want %d", cut, len(got), err, len(want))
		}
		if tail, err := s.Tail(t.Context(), ref, false, 1<<20); err != nil || tail != string(want) {
			t.Fatalf("cut at %d: a tail of %d bytes, %v", cut, len(tail), err)
		}
	}
	// What power loss leaves: the size, but zeros.
	must(t, os.WriteFile(path, append(bytes.Clone(whole[:ends[0]]), make([]byte, 1000)...), 0o600))
	if got, _, err := readLog(t, s, ref); err != nil || string(got) != "first\n" {
		t.Errorf("zeros at its end: %q, %v", got, err)
	}
	// A reader follows: more comes after an end.
	must(t, os.WriteFile(path, whole[:ends[0]+3], 0o600))
	l, err := s.OpenLogReader(t.Context(), ref)
	must(t, err)
	defer l.Close()
	for _, want := range []string{"first\n", ""} {
		rec, err := l.Next()
		if string(rec.Data) != want || (want == "") != errors.Is(err, io.EOF) {
			t.Fatalf("followed: %q, %v", rec.Data, err)
		}
	}
	must(t, os.WriteFile(path, whole, 0o600))
	if rec, err := l.Next(); err != nil || string(rec.Data) != "second\n" {
		t.Errorf("after it grew: %q, %v", rec.Data, err)
	}
}

func TestLogDamaged(t *testing.T) {
	t.Parallel()
	s := open(t)
	o := create(t, s)
	w, err := s.OpenLog(o.RunID(), "build", 1)
	must(t, err)
	must(t, w.Write(Stderr, noise(100_000)))
	ref, err := w.Finish()
	must(t, err)
	put(t, o, started("build", 1))
	f := finished("build", 1, engine.StepFailed)
	f.Outcome.Log = ref
	put(t, o, f)
	path := s.logPath(w.name)
	whole, err := os.ReadFile(path)
	must(t, err)
	for name, b := range map[string][]byte{
		"cut":     whole[:len(whole)-1],
		"flipped": append(append(bytes.Clone(whole[:500]), whole[500]^1), whole[501:]...),
		"empty":   nil,
	} {
		must(t, os.WriteFile(path, b, 0o600))
		if _, _, err := readLog(t, s, ref); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.Remove(path))
	if _, _, err := readLog(t, s, ref); !errors.Is(err, ErrCorrupt) {
		t.Errorf("removed: %v", err)
	}
}

// TestLogNames: no step's name leads out of the run's directory.
func TestLogNames(t *testing.T) {
	t.Parallel()
	s := open(t)
	for _, step := range []string{"build", "../../../x", "a/b", "..", ".", "a.b", "ü", "x\x00y", "%2F"} {
		w, err := s.OpenLog("run", step, 1)
		must(t, err)
		must(t, w.Write(Stdout, []byte(step)))
		if dir := filepath.Dir(w.f.Name()); dir != s.logsDir("run") {
			t.Errorf("the log of step %q is in %s", step, dir)
		}
		_, err = w.Finish()
		must(t, err)
		if out, _, err := readLog(t, s, LogRef("run", step, 1)); err != nil || string(out) != step {
			t.Errorf("step %q: %q, %v", step, out, err)
		}
	}
	for _, ref := range []string{"x", "log/a/b", "log/../b/1", "log/a/b/0", "log/a/b/x", "log/A/b/1", "log/a/%zz/1", "log/a//1", "log/a/b/1/c"} {
		if _, err := s.OpenLogReader(t.Context(), ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("ref %q: %v", ref, err)
		}
	}
	for _, bad := range []struct {
		run, step string
		attempt   int
	}{{"../x", "s", 1}, {"run", "", 1}, {"run", "s", 0}} {
		if _, err := s.OpenLog(bad.run, bad.step, bad.attempt); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestLogBadStream(t *testing.T) {
	t.Parallel()
	s := open(t)
	w, err := s.OpenLog("run", "build", 1)
	must(t, err)
	if err := w.Write(3, []byte("x")); err == nil || !strings.Contains(err.Error(), "stream 3") {
		t.Errorf("stream 3: %v", err)
	}
	if err := w.Write(Stdout, []byte("x")); err == nil {
		t.Error("it goes on after an error")
	}
	if _, err := w.Finish(); err == nil {
		t.Error("Finish hides the error")
	}
}

func FuzzLogReader(f *testing.F) {
	h := logHead{stream: Stdout, raw: 3, stored: 3}
	head := h.encode([]byte("abc"))
	f.Add(append(head[:], "abc"...))
	f.Add([]byte("F"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c codec
		defer c.close()
		for _, end := range []int64{-1, int64(len(b))} {
			l := &LogReader{c: &c, name: "fuzz", r: bytes.NewReader(b), end: end}
			for {
				rec, err := l.Next()
				if err != nil {
					if !errors.Is(err, io.EOF) && !errors.Is(err, ErrCorrupt) {
						t.Fatal(fmt.Errorf("neither end nor damage: %w", err))
					}
					break
				}
				if len(rec.Data) == 0 || len(rec.Data) > logChunk {
					t.Fatalf("a record of %d bytes", len(rec.Data))
				}
			}
		}
	})
}
