// Command flow runs AI coding agents and shell steps as one declarative
// pipeline in one sandbox. This package is wiring only: the tables of commands,
// drivers, providers and exit codes, and what is between them and the terminal.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"flowrun.dev/flow/sandbox/local"
)

// version is set by the build.
var version = "dev"

func main() {
	// The sandbox's init is this same binary: it must take over before anything
	// else starts.
	if local.InitMain(os.Args) {
		return
	}
	// A closed pipe is an error of the write, which the reporter remembers, not the
	// end of the run. Not Ignore: a command would inherit that, and `yes | head`
	// would complain instead of ending.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Main runs one command and returns its exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{in: stdin, out: stdout, err: stderr, env: os.Getenv, environ: os.Environ}
	return a.main(args)
}

func (a *app) main(args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(context.Background())
	return a.exit(err)
}
