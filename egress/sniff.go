package egress

import (
	"bytes"
	"encoding/binary"
)

// speech is what the first bytes of a connection are.
type speech int

const (
	speechMore  speech = iota // too few bytes to say
	speechTLS                 // a ClientHello, whole
	speechHTTP                // a request line of HTTP/1
	speechOther               // anything else, broken TLS included
)

// maxHello bounds the bytes that are read to find out.
const maxHello = 32 << 10

// heard is what was found out.
type heard struct {
	speech speech
	sni    string // of TLS, as sent; "" for none
	bad    string // why it is Other although it starts like TLS
}

// classify says what the first bytes of a client are. With all false, more bytes may
// come; with all true none do.
func classify(b []byte, all bool) heard {
	more := heard{speech: speechMore}
	if all || len(b) >= maxHello {
		more = heard{speech: speechOther, bad: "the first bytes make no sense"}
	}
	if len(b) == 0 {
		if all {
			return heard{speech: speechOther, bad: badNothing}
		}
		return more
	}
	if b[0] == recordHandshake {
		return classifyTLS(b, more)
	}
	return classifyHTTP(b, more)
}

// classifyHTTP looks for METHOD SP … SP HTTP/1.x at the end of the first line.
// The line is not judged here: the HTTP server does.
func classifyHTTP(b []byte, more heard) heard {
	other := heard{speech: speechOther}
	i := 0
	for i < len(b) && i < 20 && (b[i] >= 'A' && b[i] <= 'Z' || b[i] == '-' || b[i] == '_') {
		i++
	}
	if i == len(b) {
		return more
	}
	if i == 0 || b[i] != ' ' {
		return other
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if bytes.IndexByte(b, 0) >= 0 {
			return other
		}
		return more
	}
	line := bytes.TrimSuffix(b[:end], []byte("\r"))
	if last := bytes.LastIndexByte(line, ' '); bytes.HasPrefix(line[last+1:], []byte("HTTP/1.")) {
		return heard{speech: speechHTTP}
	}
	return other
}

const (
	recordHandshake  = 22
	handshakeHello   = 1
	extensionSNI     = 0
	maxRecord        = 1 << 14
	recordHeaderSize = 5
)

// classifyTLS collects the handshake message out of the records.
func classifyTLS(b []byte, more heard) heard {
	bad := func(why string) heard { return heard{speech: speechOther, bad: why} }
	var message []byte
	for len(b) > 0 {
		if len(b) < recordHeaderSize {
			return more
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if b[0] != recordHandshake || b[1] != 3 || size == 0 || size > maxRecord {
			return bad("broken TLS")
		}
		whole := len(b)-recordHeaderSize >= size
		part := b[recordHeaderSize:min(len(b), recordHeaderSize+size)]
		message = append(message, part...)
		if len(message) >= 4 {
			if message[0] != handshakeHello {
				return bad("TLS without a ClientHello")
			}
			length := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
			if length > maxHello {
				return bad("an oversized ClientHello")
			}
			if len(message)-4 >= length {
				sni, ok := serverName(message[4 : 4+length])
				if !ok {
					return bad("a broken ClientHello")
				}
				return heard{speech: speechTLS, sni: sni}
			}
		}
		if !whole {
			return more
		}
		b = b[recordHeaderSize+size:]
	}
	return more
}

// cursor reads length-prefixed vectors; ok turns false where bytes are missing.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || n > len(c.b) {
		c.ok, c.b = false, nil
		return nil
	}
	part := c.b[:n]
	c.b = c.b[n:]
	return part
}

// uint reads a number of n bytes.
func (c *cursor) uint(n int) int {
	v := 0
	for _, x := range c.take(n) {
		v = v<<8 | int(x)
	}
	return v
}

func (c *cursor) vector(lengthBytes int) []byte { return c.take(c.uint(lengthBytes)) }

// serverName reads a ClientHello's body. Two names, or a name that is none, are
// not ok: others would choose differently.
func serverName(hello []byte) (name string, ok bool) {
	c := cursor{b: hello, ok: true}
	c.take(2 + 32)
	c.vector(1) // session id
	c.vector(2) // cipher suites
	c.vector(1) // compression methods
	if c.ok && len(c.b) == 0 {
		return "", true // no extensions
	}
	extensions := cursor{b: c.vector(2), ok: true}
	if !c.ok || len(c.b) > 0 {
		return "", false
	}
	seen := false
	for len(extensions.b) > 0 && extensions.ok {
		kind := extensions.uint(2)
		body := extensions.vector(2)
		if kind != extensionSNI || !extensions.ok {
			continue
		}
		if seen {
			return "", false
		}
		seen = true
		outer := cursor{b: body, ok: true}
		list := cursor{b: outer.vector(2), ok: true}
		if !outer.ok || len(outer.b) > 0 {
			return "", false
		}
		kindOfName := list.uint(1)
		name = string(list.vector(2))
		if !list.ok || len(list.b) > 0 || kindOfName != 0 || name == "" {
			return "", false
		}
	}
	return name, extensions.ok
}
