package patch

import (
	"bufio"
	"compress/zlib"
	"io"
)

// git's own alphabet of base 85 (base85.c), which is not Ascii85.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"

const binaryLine = 52 // bytes of a line of a binary patch

// literal writes one side of a `GIT binary patch`: its size, then the deflated
// content. Streamed: nothing of the size of the file is held.
func literal(w *bufio.Writer, size int64, content io.Reader) error {
	if _, err := w.WriteString("literal " + itoa(size) + "\n"); err != nil {
		return err
	}
	lines := &base85Lines{w: w}
	z := zlib.NewWriter(lines)
	if _, err := io.Copy(z, content); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := lines.flush(); err != nil {
		return err
	}
	return w.WriteByte('\n')
}

// base85Lines cuts what it is given into encoded lines.
type base85Lines struct {
	w   *bufio.Writer
	buf [binaryLine]byte
	n   int
}

func (l *base85Lines) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := copy(l.buf[l.n:], p)
		l.n += n
		p = p[n:]
		if l.n == len(l.buf) {
			if err := l.flush(); err != nil {
				return 0, err
			}
		}
	}
	return total, nil
}

// flush writes the line that was begun: a letter for its length, then 5 characters
// for every 4 bytes, the last ones filled up with zeros.
func (l *base85Lines) flush() error {
	if l.n == 0 {
		return nil
	}
	length := byte('A' + l.n - 1)
	if l.n > 26 {
		length = byte('a' + l.n - 27)
	}
	line := []byte{length}
	for i := 0; i < l.n; i += 4 {
		var word uint32
		for k := range 4 {
			word <<= 8
			if i+k < l.n {
				word |= uint32(l.buf[i+k])
			}
		}
		var out [5]byte
		for k := 4; k >= 0; k-- {
			out[k] = alphabet[word%85]
			word /= 85
		}
		line = append(line, out[:]...)
	}
	l.n = 0
	_, err := l.w.Write(append(line, '\n'))
	return err
}
