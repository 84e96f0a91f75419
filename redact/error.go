package redact

import "fmt"

// redactedError shows an error without secrets and keeps its identity.
type redactedError struct {
	err error
	set *Set
}

// Error returns err such that its text, in any format, holds no secret, and
// errors.Is and errors.As see what they saw before. An error that is taken out
// with errors.As or Unwrap shows its own text again: wrap it anew before it is
// written. Error returns nil for nil, and err itself if the Set is empty.
func (s *Set) Error(err error) error {
	if err == nil || s.empty() {
		return err
	}
	return &redactedError{err, s}
}

func (e *redactedError) Error() string { return e.set.String(e.err.Error()) }

func (e *redactedError) Unwrap() error { return e.err }

// Format keeps verbs such as %+v and %#v from printing the fields.
func (e *redactedError) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), e.Error())
}
