//go:build !linux

// Package landlock is the system calls of Landlock, which only Linux has.
package landlock
