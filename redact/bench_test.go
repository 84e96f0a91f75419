package redact

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

const benchSize = 8 << 20 // bytes; beyond the caches of most machines

func benchSecrets(n int) []string {
	rng := rand.New(rand.NewPCG(3, 5))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var values []string
	for range n {
		v := []byte("sk-")
		for range 37 {
			v = append(v, alphabet[rng.IntN(len(alphabet))])
		}
		values = append(values, string(v))
	}
	return values
}

func benchInputs() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the build of package failed with error in function main.go:42: cannot use value as type string ok PASS 0.003s https://example.com/path?x=1 token password secret [INFO] 2026-01-02T03:04:05Z request id=8f3a")
	var text bytes.Buffer
	for text.Len() < benchSize {
		for range 4 + rng.IntN(12) {
			text.WriteString(words[rng.IntN(len(words))] + " ")
		}
		text.WriteByte('\n')
	}
	random := make([]byte, benchSize)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	digits := make([]byte, benchSize)
	for i := range digits {
		digits[i] = "0123456789abcdef"[rng.IntN(16)]
	}
	return map[string][]byte{"text": text.Bytes()[:benchSize], "random": random, "hex": digits}
}

func run(b *testing.B, set *Set, in []byte) {
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	w := set.Writer(io.Discard)
	for b.Loop() {
		for chunk := in; len(chunk) > 0; {
			n := min(256<<10, len(chunk))
			if _, err := w.Write(chunk[:n]); err != nil {
				b.Fatal(err)
			}
			chunk = chunk[n:]
		}
	}
}

// BenchmarkWriter stands for "200 MB of output through the redactor" of
// docs/benchmarks.md: bytes per second of 256 KB writes in which nothing is found.
func BenchmarkWriter(b *testing.B) {
	inputs := benchInputs()
	for _, name := range []string{"text", "random", "hex"} {
		for _, n := range []int{0, 1, 5, 20} {
			b.Run(fmt.Sprintf("%s/secrets=%d", name, n), func(b *testing.B) {
				run(b, mustNew(b, benchSecrets(n)...), inputs[name])
			})
		}
	}
	b.Run("text/passwords=5", func(b *testing.B) {
		run(b, mustNew(b, "hunter2!", "letmein99", "correcthorse", "pa55word-prod", "s3cr3t-k3y"), inputs["text"])
	})
	b.Run("text/pem=1", func(b *testing.B) { run(b, mustNew(b, longKey()), inputs["text"]) })
}

// BenchmarkHostile shows inputs that defeat the filter.
func BenchmarkHostile(b *testing.B) {
	for _, c := range hostile() {
		b.Run(c.name, func(b *testing.B) { run(b, mustNew(b, c.secrets...), c.text(1<<20)) })
	}
}

func BenchmarkNew(b *testing.B) {
	for name, values := range map[string][]string{"1": benchSecrets(1), "5": benchSecrets(5), "pem": {longKey()}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustNew(b, values...)
			}
		})
	}
}

func BenchmarkString(b *testing.B) {
	set := mustNew(b, benchSecrets(5)...)
	b.ReportAllocs()
	for b.Loop() {
		set.String("step build: exit status 1")
	}
}

// longKey has the shape of a private key of 2048 bits.
func longKey() string {
	return "-----BEGIN PRIVATE KEY-----\n" + wrapAt(strings.Join(benchSecrets(40), ""), 64, "\n") + "\n-----END PRIVATE KEY-----\n"
}

type hostileCase struct {
	name    string
	secrets []string
	unit    string
}

func (c hostileCase) text(n int) []byte {
	return bytes.Repeat([]byte(c.unit), n/len(c.unit)+1)[:n]
}

// hostile returns inputs that consist of near misses, or of nothing but hits.
func hostile() []hostileCase {
	long := strings.Repeat("a", 4000)
	return []hostileCase{
		{"near-miss", []string{"abcdefghijklmnopqrstuvwxyz012345"}, "abcdefghijklmnopqrstuvwxyz01234 "},
		{"periodic", []string{long + "b"}, "a"},
		{"periodic-miss", []string{long + "b"}, long[:3999] + "c"},
		{"every-depth", []string{long[:64] + "b", long[:63] + "c" + long, long[:9] + "d"}, long[:62] + "e"},
		{"all-hits", []string{"abcd", "bcda"}, "abcd"},
		{"hits-apart", []string{"abcd"}, "abcd "},
		{"base64-lines", []string{long}, strings.Repeat("YWFh", 19) + "\n"},
		{"breaks", []string{long}, strings.Repeat("YWFh", 8) + "\\r\\n"},
	}
}
