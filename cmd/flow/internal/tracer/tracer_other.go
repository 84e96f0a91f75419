//go:build !linux || !amd64

package tracer

import "errors"

// Trace is not there: the registers of a system call differ by architecture.
func Trace(Job) (Result, error) {
	return Result{}, errors.New("trace: only written for linux/amd64")
}
