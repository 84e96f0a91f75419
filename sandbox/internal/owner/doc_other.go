//go:build !unix

// Package owner names what one process leaves on the machine if it is killed.
package owner
