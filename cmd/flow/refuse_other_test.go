//go:build !linux

package main

import "os"

// refuseNamespaces: there are none here.
func refuseNamespaces() { os.Exit(1) }
