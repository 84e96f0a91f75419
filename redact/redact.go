// Package redact takes secrets out of everything that is written.
package redact
