//go:build !linux

package main

import "os"

// refuseNamespaces: there are none here.
func refuseNamespaces() { os.Exit(1) }

// asMode: only the abuse tests, which are Linux's, use it.
func asMode() { os.Exit(1) }
