// Package flow holds nothing but the import law (arch_test.go): the program is
// cmd/flow, the library the folders beside it (docs/architecture.md).
package flow
