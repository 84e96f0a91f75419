package claudecode

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"flowrun.dev/flow/sandbox"
)

// listener is a sandbox that opens a listening socket in its own network.
type listener interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
}

// serve puts the API where the CLI inside reaches it: the loopback of the sandbox.
func serve(ctx context.Context, sb sandbox.Sandbox, h http.Handler) (url string, closeAll func(), err error) {
	var ln net.Listener
	switch inner, ok := sb.(listener); {
	case ok:
		ln, err = inner.Listen(ctx, "tcp", "127.0.0.1:0")
	case sb.Info().Tier == sandbox.TierNone:
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	default:
		return "", nil, invalid("use `driver: host` until then", "serve the model's API inside: driver %s cannot listen in its sandboxes yet", sb.Info().Driver)
	}
	if err != nil {
		return "", nil, &sandbox.Error{Op: "serve the model's API inside", Class: sandbox.ClassInfrastructure, Err: err}
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, ErrorLog: log.New(nowhere{}, "", 0)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(ln) // ends by Close
	}()
	return "http://" + ln.Addr().String(), func() {
		_ = srv.Close()
		<-ended
	}, nil
}

// nowhere: a client that breaks off is no news, and the CLI reports what matters.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

var errNoAnswer = errors.New("the answer broke off before its end")

func brokenOff(err error) error {
	if err == nil {
		return errNoAnswer
	}
	return fmt.Errorf("%w: %w", errNoAnswer, err)
}
