package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"

	"flowrun.dev/flow/agent"
)

const (
	// maxLine bounds one line of a stream that is looked at. Those with usage are
	// short; longer ones pass unread.
	maxLine = 1 << 20
	// maxAnswer bounds what is kept of an answer that is not streamed, or is recorded.
	maxAnswer = 64 << 20
)

// meter is an answer's body on its way: it counts what passes and tells done once,
// at the end, whole or not.
type meter struct {
	io.ReadCloser
	streamed bool
	keep     bool // the bytes are wanted
	done     func(*meter)
	once     sync.Once

	line  []byte
	long  bool // the current line is too long to be looked at
	kept  bytes.Buffer
	model string
	usage usage
	seen  bool // an answer began
	whole bool
}

// usage as the API gives it; a delta's figures are totals, and a missing one does not
// change what is known.
type usage struct {
	Input      *int64 `json:"input_tokens"`
	Output     *int64 `json:"output_tokens"`
	CacheRead  *int64 `json:"cache_read_input_tokens"`
	CacheWrite *int64 `json:"cache_creation_input_tokens"`
	Creation   *struct {
		Hour int64 `json:"ephemeral_1h_input_tokens"`
	} `json:"cache_creation"`
}

func (u *usage) take(o usage) {
	for _, f := range []struct{ to, from **int64 }{
		{&u.Input, &o.Input}, {&u.Output, &o.Output}, {&u.CacheRead, &o.CacheRead}, {&u.CacheWrite, &o.CacheWrite},
	} {
		if *f.from != nil {
			*f.to = *f.from
		}
	}
	if o.Creation != nil {
		u.Creation = o.Creation
	}
}

func value(p *int64) int64 {
	if p == nil || *p < 0 {
		return 0
	}
	return *p
}

func (u usage) spending() (s agent.Spending, write1h int64) {
	s = agent.Spending{Requests: 1, InputTokens: value(u.Input), OutputTokens: value(u.Output),
		CacheReadTokens: value(u.CacheRead), CacheWriteTokens: value(u.CacheWrite)}
	if u.Creation != nil {
		write1h = min(max(u.Creation.Hour, 0), s.CacheWriteTokens)
	}
	return s, write1h
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	if (m.keep || !m.streamed) && m.kept.Len()+n <= maxAnswer {
		m.kept.Write(p[:n])
	}
	if m.streamed {
		m.scan(p[:n])
	}
	if err != nil {
		m.end()
	}
	return n, err
}

// Close ends the answer, whole or not.
func (m *meter) Close() error {
	m.end()
	return m.ReadCloser.Close()
}

func (m *meter) end() {
	m.once.Do(func() {
		if !m.streamed {
			m.message(m.kept.Bytes())
		}
		m.done(m)
	})
}

// message reads an answer that came as one JSON value.
func (m *meter) message(b []byte) {
	var v struct {
		Model string `json:"model"`
		Usage *usage `json:"usage"`
	}
	if json.Unmarshal(b, &v) == nil && v.Usage != nil {
		m.seen, m.whole, m.model = true, true, v.Model
		m.usage.take(*v.Usage)
	}
}

// scan takes a stream's lines apart.
func (m *meter) scan(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if !m.long && len(m.line)+len(part) <= maxLine {
			m.line = append(m.line, part...)
		} else {
			m.long = true
		}
		if i < 0 {
			return
		}
		if !m.long {
			m.event(m.line)
		}
		m.line, m.long = m.line[:0], false
		p = p[i+1:]
	}
}

// event reads the data of the few events that carry usage.
func (m *meter) event(line []byte) {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok || !bytes.Contains(data, []byte("message_")) {
		return // a content block: most of a stream
	}
	var v struct {
		Type    string `json:"type"`
		Usage   *usage `json:"usage"`
		Message struct {
			Model string `json:"model"`
			Usage *usage `json:"usage"`
		} `json:"message"`
	}
	if json.Unmarshal(data, &v) != nil {
		return
	}
	switch v.Type {
	case "message_start":
		m.seen, m.model = true, v.Message.Model
		if v.Message.Usage != nil {
			m.usage.take(*v.Message.Usage)
		}
	case "message_delta":
		if v.Usage != nil {
			m.usage.take(*v.Usage)
		}
	case "message_stop":
		m.whole = true
	}
}

func isStream(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}
