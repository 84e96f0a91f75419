package child

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"flowrun.dev/flow/sandbox"
)

// Serve puts the gateway to the model where the program inside reaches it: the loopback of the
// sandbox. Every process of it can connect; the gateway asks for the token.
func Serve(ctx context.Context, sb sandbox.Sandbox, h http.Handler) (url string, closeAll func(), err error) {
	ln, err := sb.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("serve the model's API inside: %w", err)
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

// nowhere: a client that breaks off is no news, and the program says what matters.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
