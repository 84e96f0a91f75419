//go:build !linux

// Package cgroup bounds processes with control groups, which only Linux has.
package cgroup
