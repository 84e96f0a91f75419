package claudecode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"flowrun.dev/flow/agent/child"
	"flowrun.dev/flow/sandbox"
)

// maxLine bounds one event; a tool's result of this size was cut by the CLI before.
const maxLine = 64 << 20

// process is the running CLI.
type process struct {
	*child.Process
	lines *bufio.Reader

	sending sync.Mutex
}

func start(ctx context.Context, sb sandbox.Sandbox, c command) (*process, error) {
	p, err := child.Start(ctx, sb, sandbox.Cmd{Argv: c.argv, Env: c.env, Rights: c.rights})
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(p, c.token+"\n")
	return &process{Process: p, lines: bufio.NewReaderSize(p.IO, 64<<10)}, err
}

// send writes one message of the control protocol.
func (p *process) send(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a control message: %w", err)
	}
	p.sending.Lock()
	defer p.sending.Unlock()
	_, err = p.Write(append(raw, '\n'))
	return err
}

// next reads one line; io.EOF after the last.
func (p *process) next() ([]byte, error) {
	var line []byte
	for {
		part, err := p.lines.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("read the CLI's events: one is longer than %d bytes", maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
			if len(line) > 0 {
				return line, nil
			}
			return nil, io.EOF
		case err != nil:
			return nil, child.Place(err)
		default:
			return line, nil
		}
	}
}
