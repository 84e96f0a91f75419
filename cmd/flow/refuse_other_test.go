//go:build !linux

package main

import "os"

// refuseNamespaces: there are none here.
func refuseNamespaces() { os.Exit(1) }

// as: only the abuse tests, which are Linux's, use it.
func as() { os.Exit(1) }
