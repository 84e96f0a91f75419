//go:build !linux

package host

// EndLeft finds nobody: there is no /proc.
func EndLeft(string) int { return 0 }
