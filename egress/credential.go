package egress

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"

	"flowrun.dev/flow/redact"
)

// Credential is a secret that is used for one host without the sandbox having it.
type Credential struct {
	// Name of the secret.
	Name string
	// Host it is bound to, a name with an optional port (443). Requests to it are
	// made over TLS only.
	Host string
	// Header that carries it, default Authorization.
	Header string
	// Format of the header, in which {} stands for the value; default "{}".
	Format string
	// Value is the secret.
	Value string
}

type credential struct {
	Credential
	target      Target
	placeholder string
}

// bind checks the credentials and makes their placeholders.
func (c *Client) bind(list []Credential) error {
	var secrets []redact.Secret
	for _, cr := range list {
		t, err := parseAuthority(cr.Host, 443)
		switch {
		case err != nil:
			return fmt.Errorf("secret %s: host %s: %w", cr.Name, shown(cr.Host), err)
		case c.proxy.authority == nil || !c.proxy.authority.covers(t):
			return fmt.Errorf("secret %s: the proxy was not prepared for host %s", cr.Name, t.Host)
		}
		if cr.Header == "" {
			cr.Header = "Authorization"
		}
		if cr.Format == "" {
			cr.Format = "{}"
		}
		if strings.ContainsAny(cr.Value, "\r\n\x00") {
			return fmt.Errorf("secret %s: the value has a line end, which no header can hold", cr.Name)
		}
		var raw [12]byte
		rand.Read(raw[:]) // never fails (crypto/rand)
		c.creds = append(c.creds, credential{Credential: cr, target: t,
			placeholder: "flow-placeholder-" + strings.ToLower(cr.Name) + "-" + hex.EncodeToString(raw[:])})
		secrets = append(secrets, redact.Secret{Name: cr.Name, Value: cr.Value})
	}
	var err error
	c.scrub, err = redact.New(secrets...)
	return err
}

// Placeholders are what stands for the credentials inside the sandbox, by name.
func (c *Client) Placeholders() map[string]string {
	out := map[string]string{}
	for i := range c.creds {
		out[c.creds[i].Name] = c.creds[i].placeholder
	}
	return out
}

// credentialFor finds what is bound to a target; the first one wins.
func (c *Client) credentialFor(t Target) *credential {
	for i := range c.creds {
		if c.creds[i].target == t {
			return &c.creds[i]
		}
	}
	return nil
}

// put makes a request carry the value, whatever the client wrote there: with
// another account's key nothing can be sent to this host.
func (cr *credential) put(h http.Header) {
	name := textproto.CanonicalMIMEHeaderKey(cr.Header)
	h[name] = []string{strings.ReplaceAll(cr.Format, "{}", cr.Value)}
	// The answer is searched for the value: it must be readable, and whole.
	h.Set("Accept-Encoding", "identity")
	h.Del("Range")
	h.Del("If-Range")
}

// encodingError: an answer that cannot be searched.
type encodingError struct{ encoding string }

func (e *encodingError) Error() string {
	return fmt.Sprintf("it is encoded as %s although identity was asked for, so that it cannot be searched for the credential", shown(e.encoding))
}

// scrubAnswer replaces the credentials in an answer, should the host send one back.
func (c *Client) scrubAnswer(resp *http.Response) error {
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return &encodingError{encoding: e}
	}
	c.scrubHeader(resp.Header)
	if resp.Body == nil || resp.Body == http.NoBody {
		return nil
	}
	s := &scrubber{in: resp.Body, stream: c.scrub.Stream(), trailer: func() { c.scrubHeader(resp.Trailer) }}
	if rw, ok := resp.Body.(io.ReadWriteCloser); ok {
		resp.Body = &scrubbedBoth{scrubber: s, w: rw}
		return nil
	}
	resp.Body = s
	if resp.ContentLength > 0 {
		// It may become shorter or longer.
		resp.ContentLength = -1
		resp.Header.Del("Content-Length")
	}
	return nil
}

func (c *Client) scrubHeader(h http.Header) {
	for name, values := range h {
		for i, v := range values {
			values[i] = c.scrub.String(v)
		}
		if clean := c.scrub.String(name); clean != name {
			delete(h, name)
		}
	}
}

// scrubber is a body without the credentials.
type scrubber struct {
	in      io.ReadCloser
	stream  *redact.Stream
	buf     []byte
	out     []byte // to be read
	err     error
	trailer func()
}

func (s *scrubber) Read(b []byte) (int, error) {
	for len(s.out) == 0 && s.err == nil {
		if s.buf == nil {
			s.buf = make([]byte, 16<<10)
		}
		var n int
		n, s.err = s.in.Read(s.buf)
		s.out = append(s.out[:0], s.stream.Next(s.buf[:n])...)
		if s.err != nil {
			// After an error what is held may be the beginning of a credential.
			if errors.Is(s.err, io.EOF) {
				s.out = append(s.out, s.stream.Rest()...)
				s.trailer()
			}
		}
	}
	n := copy(b, s.out)
	s.out = s.out[n:]
	if len(s.out) == 0 && n == 0 {
		return 0, s.err
	}
	return n, nil
}

func (s *scrubber) Close() error { return s.in.Close() }

// scrubbedBoth is the body of an upgraded connection.
type scrubbedBoth struct {
	*scrubber
	w io.Writer
}

func (s *scrubbedBoth) Write(b []byte) (int, error) { return s.w.Write(b) }
