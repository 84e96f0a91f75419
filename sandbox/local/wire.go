package local

import (
	"encoding/binary"
	"errors"
	"time"

	"flowrun.dev/flow/sandbox"
)

// Kinds of messages, the first byte of each. Both ends are the same binary, so
// there is no version.
const (
	msgConfig  = 'c' // host → stage 1: JSON of config, with descriptors
	msgExec    = 'x' // host → init: execRequest, with descriptors
	msgExecBig = 'X' // the same, its body in a memfd, the last descriptor
	msgKill    = 'k' // host → init: killRequest
	msgListen  = 'l' // host → init: listenRequest
	msgClean   = 'q' // host → init: killRequest; answered by an execResult whose Code is 0 for clean
	msgCaught  = 'p' // stage 1 → host, with the descriptors of Spec.Catch: names, then the ports
	msgReady   = 'R' // init → host, with its pid
	msgFailed  = 'E' // stage 1 → host: JSON of failure
	msgResult  = 'r' // init → host: execResult
	msgSocket  = 's' // init → host: listenResult, with a descriptor if it succeeded
)

// maxInline is the largest body that is sent in the message itself. A SEQPACKET
// message must fit into the socket's buffer (net.core.wmem_default, 208 KiB).
const maxInline = 32 << 10

// config is what stage 1 needs to know.
type config struct {
	Root     bool           `json:"root"` // the range map: commands switch to UserID
	Network  bool           `json:"network"`
	Hostname string         `json:"hostname"`
	Home     string         `json:"home,omitempty"` // host path; as root a descriptor instead
	Exe      string         `json:"exe,omitempty"`  // host path; as root a descriptor instead
	Resolv   []byte         `json:"resolv,omitempty"`
	Tmp      string         `json:"tmp,omitempty"` // host path, in the tier landlock
	Limits   sandbox.Limits `json:"limits"`
	View     bool           `json:"view,omitempty"` // the workspace is a mount; its descriptor comes third
	// Mounts by their place inside. Host is empty as root: descriptors come after
	// those of home and binary, in this order.
	Mounts []sandbox.Mount `json:"mounts,omitempty"`
	Trust  []byte          `json:"trust,omitempty"`
	Catch  []int           `json:"catch,omitempty"`
}

// failure is why stage 1 gave up.
type failure struct {
	Op    string `json:"op"`
	Errno int    `json:"errno"`
	Text  string `json:"text"`
}

type execRequest struct {
	ID        uint64
	Argv, Env []string
	Dir       string
	// Has says which of stdin, stdout, stderr are passed; the others are /dev/null.
	Has [3]bool
	// Terminal: stdin is to be the controlling terminal.
	Terminal bool
	// The command's sandbox.Rights.
	ReadOnly, NoSockets bool
	Write               []string
}

type killRequest struct {
	ID    uint64
	Grace time.Duration
}

// listenRequest asks for a listening socket of TCP on Addr ("127.0.0.1:0").
type listenRequest struct {
	ID   uint64
	Addr string
}

// listenResult: Why is empty if the descriptor came.
type listenResult struct {
	ID    uint64
	Errno int
	Why   string
}

// How an exec was refused by init.
const (
	refusedNot      = iota // it ran
	refusedInvalid         // the request is wrong: the working directory, a writable path
	refusedResource        // the place is in trouble
)

type execResult struct {
	ID           uint64
	PID          int
	Code, Signal int
	Killed       bool
	Leftover     int
	User, System time.Duration
	MaxRSS       int64
	Refused      int
	Why          string
	Full         bool // it failed, and a scratch folder is full
}

var errTruncated = errors.New("truncated message")

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, l []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	for _, s := range l {
		b = appendString(b, s)
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func (r *execRequest) append(b []byte) []byte {
	b = binary.AppendUvarint(b, r.ID)
	for _, has := range r.Has {
		b = appendBool(b, has)
	}
	b = appendString(b, r.Dir)
	b = appendStrings(b, r.Argv)
	b = appendStrings(b, r.Env)
	b = appendBool(appendBool(appendBool(b, r.ReadOnly), r.NoSockets), r.Terminal)
	return appendStrings(b, r.Write)
}

func (r *execRequest) parse(b []byte) error {
	d := decoder{b: b}
	r.ID = d.uint()
	for i := range r.Has {
		r.Has[i] = d.bool()
	}
	r.Dir = d.string()
	r.Argv = d.strings()
	r.Env = d.strings()
	r.ReadOnly, r.NoSockets, r.Terminal = d.bool(), d.bool(), d.bool()
	r.Write = d.strings()
	return d.err
}

func (r *killRequest) append(b []byte) []byte {
	return binary.AppendVarint(binary.AppendUvarint(b, r.ID), int64(r.Grace))
}

func (r *killRequest) parse(b []byte) error {
	d := decoder{b: b}
	r.ID = d.uint()
	r.Grace = time.Duration(d.int())
	return d.err
}

func (r *listenRequest) append(b []byte) []byte {
	return appendString(binary.AppendUvarint(b, r.ID), r.Addr)
}

func (r *listenRequest) parse(b []byte) error {
	d := decoder{b: b}
	r.ID = d.uint()
	r.Addr = d.string()
	return d.err
}

func (r *listenResult) append(b []byte) []byte {
	return appendString(binary.AppendVarint(binary.AppendUvarint(b, r.ID), int64(r.Errno)), r.Why)
}

func (r *listenResult) parse(b []byte) error {
	d := decoder{b: b}
	r.ID = d.uint()
	r.Errno = int(d.int())
	r.Why = d.string()
	return d.err
}

func (r *execResult) append(b []byte) []byte {
	b = binary.AppendUvarint(b, r.ID)
	b = appendBool(appendBool(b, r.Killed), r.Full)
	for _, v := range [...]int64{int64(r.PID), int64(r.Code), int64(r.Signal), int64(r.Leftover),
		int64(r.User), int64(r.System), r.MaxRSS, int64(r.Refused)} {
		b = binary.AppendVarint(b, v)
	}
	return appendString(b, r.Why)
}

func (r *execResult) parse(b []byte) error {
	d := decoder{b: b}
	r.ID = d.uint()
	r.Killed, r.Full = d.bool(), d.bool()
	r.PID, r.Code, r.Signal, r.Leftover = int(d.int()), int(d.int()), int(d.int()), int(d.int())
	r.User, r.System, r.MaxRSS, r.Refused = time.Duration(d.int()), time.Duration(d.int()), d.int(), int(d.int())
	r.Why = d.string()
	return d.err
}

// decoder reads what the append functions wrote. After an error everything is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	return v * d.skip(n)
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	return v * int64(d.skip(n))
}

// skip drops n bytes and returns 1, or records the error and returns 0.
func (d *decoder) skip(n int) uint64 {
	if d.err != nil || n <= 0 || n > len(d.b) {
		d.err, d.b = errTruncated, nil
		return 0
	}
	d.b = d.b[n:]
	return 1
}

func (d *decoder) bool() bool {
	if len(d.b) == 0 {
		d.skip(1)
		return false
	}
	v := d.b[0] != 0
	d.skip(1)
	return v
}

func (d *decoder) string() string {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.skip(0)
		return ""
	}
	s := string(d.b[:n])
	if n > 0 {
		d.skip(int(n))
	}
	return s
}

func (d *decoder) strings() []string {
	n := d.uint()
	if n > uint64(len(d.b)) { // each takes a byte at least
		d.skip(0)
		return nil
	}
	l := make([]string, 0, n)
	for range n {
		l = append(l, d.string())
	}
	return l
}
