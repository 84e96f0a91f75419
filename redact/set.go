package redact

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

const (
	// Mark stands where a secret was.
	Mark = "***REDACTED***"
	// MinLength is the shortest value, in bytes without surrounding white
	// space, that can be redacted without shredding ordinary output.
	MinLength = 4
	// MaxLength is the longest value in bytes. Measured: a Set keeps about 0.9 KB
	// per byte of a value of many lines; New takes 12 ms for a private key of
	// 1.7 KB and 0.16 s at this limit.
	MaxLength = 16 << 10
)

// Secret is a value that must not be written, and the name to report it by.
// The name is not secret.
type Secret struct{ Name, Value string }

// Format prints the name alone, whatever the verb: a Secret that ends up in a
// message must not give itself away.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "secret %q", s.Name) }

// Set finds and replaces a fixed set of secrets. It does not change and may be
// used by many goroutines. A nil Set is an empty one.
type Set struct {
	names  []string
	views  [viewCount]*automaton // nil: nothing to find in this view
	norm   [viewCount][256]byte
	filter filter
}

// New returns the Set of the secrets; without any, an empty Set that costs
// nothing. It reports all unusable secrets at once, by name and never by value:
// those that are empty or shorter than MinLength without surrounding white
// space, longer than MaxLength, or part of Mark.
func New(secrets ...Secret) (*Set, error) {
	set, forms := &Set{}, &patterns{}
	var bad []error
	for i, secret := range secrets {
		if err := check(secret); err != nil {
			bad = append(bad, err)
			continue
		}
		set.names = append(set.names, secret.Name)
		forms.addSecret(secret.Value, i)
	}
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	if len(secrets) == 0 {
		return set, nil
	}
	for k := range viewCount {
		for c := range 256 {
			set.norm[k][c] = k.normalise(byte(c))
		}
		if len(forms.byView[k]) > 0 {
			set.views[k] = newAutomaton(forms.byView[k])
		}
	}
	set.filter = newFilter(forms)
	return set, nil
}

// check returns why a secret cannot be redacted.
func check(s Secret) error {
	value := strings.TrimSpace(s.Value)
	var cause string
	switch {
	case s.Value == "":
		cause = "the value is empty; set it, or remove the secret"
	case len(value) < MinLength:
		cause = fmt.Sprintf("the value has fewer than %d bytes besides white space, which would redact ordinary output; use a longer one", MinLength)
	case len(s.Value) > MaxLength:
		cause = fmt.Sprintf("the value has more than %d bytes; keep only the secret part of it as a secret", MaxLength)
	case strings.Contains(strings.ToLower(Mark), strings.ToLower(value)):
		cause = "the value is a part of the mark that replaces secrets; use another one"
	default:
		return nil
	}
	return fmt.Errorf("redact secret %q: %s", s.Name, cause)
}

// empty reports whether there is nothing to find.
func (s *Set) empty() bool { return s == nil || len(s.names) == 0 }

// Bytes returns b with all secrets replaced: b itself if it holds none,
// otherwise a new slice. It never changes b.
func (s *Set) Bytes(b []byte) []byte {
	if s.empty() {
		return b
	}
	stream := s.Stream()
	head := stream.Next(b)
	if stream.seen == nil {
		return b
	}
	head = append(make([]byte, 0, len(b)+len(Mark)), head...)
	return stream.AppendRest(head)
}

// String returns v with all secrets replaced.
func (s *Set) String(v string) string {
	if s.empty() || v == "" {
		return v
	}
	// Bytes does not change its argument, so the string may lend its bytes; a
	// copy would cost more than the search.
	in := unsafe.Slice(unsafe.StringData(v), len(v))
	out := s.Bytes(in)
	if len(out) == len(in) && (len(out) == 0 || &out[0] == &in[0]) {
		return v
	}
	return string(out)
}

// Contains reports whether b holds a secret in any form, and the name of one.
// To learn all names, or to search what does not fit into memory, use a Stream
// and Seen.
func (s *Set) Contains(b []byte) (name string, found bool) {
	if s.empty() {
		return "", false
	}
	const step = 64 << 10 // bytes searched before asking whether that is enough
	for stream := s.Stream(); len(b) > 0; {
		n := min(step, len(b))
		stream.Next(b[:n])
		if names := stream.Seen(); names != nil {
			return names[0], true
		}
		b = b[n:]
	}
	return "", false
}
