package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

func mustNew(t testing.TB, values ...string) *Set {
	t.Helper()
	set, err := New(named(values...)...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func named(values ...string) []Secret {
	var secrets []Secret
	for i, v := range values {
		secrets = append(secrets, Secret{fmt.Sprintf("S%d", i), v})
	}
	return secrets
}

// A secret with everything that encoders treat specially.
const nasty = "p4ss/W<o>rd &\"é'\\+=?~ %x😀_kéy"

const pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF/AASCBKc\nwggSjAgEAAoIBAQ+C7x\nab\n-----END KEY-----\n"

func goJSON(v string) string {
	b, _ := json.Marshal(v)
	return strings.Trim(string(b), `"`)
}

func plainJSON(v string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	s := strings.TrimSpace(b.String())
	return s[1 : len(s)-1]
}

func wrapAt(s string, n int, eol string) string {
	var out strings.Builder
	for len(s) > n {
		out.WriteString(s[:n] + eol)
		s = s[n:]
	}
	return out.String() + s
}

func everyByte(v, format string) string {
	var out strings.Builder
	for i := range len(v) {
		fmt.Fprintf(&out, format, v[i])
	}
	return out.String()
}

// TestForms writes a secret as the encoders of the standard library do, not as
// forms.go does.
func TestForms(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		secret string
		form   string
	}{
		{"plain", nasty, nasty},
		{"short", "ab1!", "ab1!"},
		{"lower", "Hunter2-Hunter2", "hunter2-hunter2"},
		{"upper", "Hunter2-Hunter2", "HUNTER2-HUNTER2"},
		{"title", "hunter2-hunter2", "Hunter2-Hunter2"},
		{"upper beyond ASCII", "schlüssel-wörter", "SCHLÜSSEL-WÖRTER"},
		{"trailing newline of a file", "hunter2x\n", "hunter2x"},
		{"white space around", "  hunter2x ", "hunter2x"},
		{"line", pem, "MIIEvQIBADANBgkqhkiG9w0BAQEF/AASCBKc"},
		{"last line", pem, "wggSjAgEAAoIBAQ+C7x"},
		{"whole", pem, strings.TrimSpace(pem)},
		{"whole crlf", pem, strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\r\n")},
		{"crlf secret, lf text", "first line\r\nsecond\r\nx", "first line\nsecond\nx"},
		{"whole json", pem, goJSON(strings.TrimSpace(pem))},
		{"line base64", pem, base64.RawStdEncoding.EncodeToString([]byte("MIIEvQIBADANBgkqhkiG9w0BAQEF/AASCBKc"))},
		{"json go", nasty, goJSON(nasty)},
		{"json plain", nasty, plainJSON(nasty)},
		{"json upper", "<hunter2>&", `\u003Chunter2\u003E\u0026`},
		{"json upper short", "<pw>", `\u003Cpw\u003E`},
		{"json lower short", "<pw>", `\u003cpw\u003e`},
		{"json slash", "ab/cd/ef", `ab\/cd\/ef`},
		{"json ascii", "schl\u00fcssel😀", `schl\u00fcssel\ud83d\ude00`},
		{"json in json", nasty, goJSON(goJSON(nasty))},
		{"json in json plain", nasty, plainJSON(plainJSON(nasty))},
		{"json thrice", nasty, plainJSON(plainJSON(plainJSON(nasty)))},
		{"go quoted", nasty + "\x00\x1b", strings.Trim(strconv.Quote(nasty+"\x00\x1b"), `"`)},
		{"html", nasty, html.EscapeString(nasty)},
		{"shell", "it's hunter2", `it'\''s hunter2`},
		{"yaml", "it's hunter2", `it''s hunter2`},
		{"query", nasty, url.QueryEscape(nasty)},
		{"query lower", "p@ss/w ord", "p%40ss%2fw+ord"},
		{"path", nasty, url.PathEscape(nasty)},
		{"path lower", "p@ss/w ord", "p@ss%2fw%20ord"},
		{"encodeURIComponent", "p'ss(w) ö/rd", "p'ss(w)%20%C3%B6%2Frd"},
		{"every byte percent", nasty, everyByte(nasty, "%%%02x")},
		{"every byte percent upper", nasty, everyByte(nasty, "%%%02X")},
		{"every byte percent short", "ab1!", "%61%62%31%21"},
		{"hex", nasty, hex.EncodeToString([]byte(nasty))},
		{"hex upper", nasty, strings.ToUpper(hex.EncodeToString([]byte(nasty)))},
		{"hex short", "ab1!", "61623121"},
		{"base64", nasty, base64.StdEncoding.EncodeToString([]byte(nasty))},
		{"base64 raw url", nasty, base64.RawURLEncoding.EncodeToString([]byte(nasty))},
		{"base64 of echo", "hunter2x", base64.StdEncoding.EncodeToString([]byte("hunter2x\n"))[:11]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := mustNew(t, tt.secret)
			for _, around := range [][2]string{{"", ""}, {"a: [", "] é"}, {"\n", "\n"}} {
				in, want := around[0]+tt.form+around[1], around[0]+Mark+around[1]
				if got := set.String(in); got != want {
					t.Errorf("String(%q) = %q, want %q", in, got, want)
				}
				checkSplits(t, set, in, want)
			}
			if name, found := set.Contains([]byte("x" + tt.form)); !found || name != "S0" {
				t.Errorf("Contains = %q, %v", name, found)
			}
		})
	}
}

// TestBase64Embedded embeds a secret at each offset of a longer text that is
// encoded and wrapped, and looks whether a stretch of its bytes is left.
func TestBase64Embedded(t *testing.T) {
	t.Parallel()
	const secret = "k9?>~\xff\xfeT0pS3cret/+x-0123456789-abcdefghijklmnopqrstuvwxyz"
	set := mustNew(t, secret)
	encodings := map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.URLEncoding}
	for name, enc := range encodings {
		for _, eol := range []string{"", "\n", "\r\n", `\n`, `\r\n`} {
			for _, width := range []int{76, 64, 60, 33} {
				for offset := range 80 {
					plain := strings.Repeat("~", offset) + secret + strings.Repeat("!", 80)
					in := wrapAt(enc.EncodeToString([]byte(plain)), width, eol)
					got := set.String(in)
					if offset%16 == 0 { // slow
						if want := naive([]byte(in), named(secret)...); got != string(want) {
							t.Fatalf("%s %q %d offset %d: %q, want %q", name, eol, width, offset, got, want)
						}
					}
					head, tail, found := strings.Cut(got, Mark)
					if !found || strings.Contains(tail, Mark) {
						t.Fatalf("%s %q %d offset %d: %q", name, eol, width, offset, got)
					}
					count := func(s string) int { return len(strings.ReplaceAll(s, eol, "")) }
					if eol == "" {
						count = func(s string) int { return len(s) }
					}
					// Whole characters in front: those that hold a bit of the prefix.
					if n, most := count(head), (8*offset+5)/6; n > most {
						t.Fatalf("%s %q %d offset %d: %d characters left in front, want %d", name, eol, width, offset, n, most)
					}
					whole := len(enc.EncodeToString([]byte(plain)))
					if n, most := count(tail), whole-8*(offset+len(secret))/6; n > most {
						t.Fatalf("%s %q %d offset %d: %d characters left behind, want %d", name, eol, width, offset, n, most)
					}
				}
			}
		}
	}
}

func TestHexWrapped(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("0123456789abcdefghij", 3)
	in := wrapAt(hex.EncodeToString([]byte("xxxxx"+secret)), 60, "\n") + "\n"
	if got, want := mustNew(t, secret).String(in), "7878787878"+Mark+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestBreakBeforeSecret: a line break that lies inside of a near miss, but in
// front of the secret, is kept.
func TestBreakBeforeSecret(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter3-hunter4"
	form := hex.EncodeToString([]byte(secret))
	for _, eol := range []string{"\n", "\r\n", `\n`, `\r\n`} {
		line := strings.Repeat("0", 40) + form[:9]
		in, want := line+eol+form+".", line+eol+Mark+"."
		set := mustNew(t, secret)
		if got := set.String(in); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		checkSplits(t, set, in, want)
	}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		secrets []string
		in      string
		want    string
	}{
		{"none", []string{"abcdef"}, "abcde abcdf", "abcde abcdf"},
		{"prefix of the other", []string{"abcd", "abcdefgh"}, "x abcdefgh abcdefg y", "x " + Mark + " " + Mark + "efg y"},
		{"suffix of the other", []string{"efgh", "abcdefgh"}, "x abcdefgh bcdefgh", "x " + Mark + " bcd" + Mark},
		{"inside of the other", []string{"cdef", "abcdefgh"}, "abcdefgh bcdefghi", Mark + " b" + Mark + "ghi"},
		{"overlap in the text", []string{"abcdef", "defghi"}, "-abcdefghi-", "-" + Mark + "-"},
		{"chain", []string{"abcd", "cdab"}, "abcdabcdabx", Mark + "x"},
		{"adjacent", []string{"abcd", "wxyz"}, "abcdwxyzabcd.", Mark + "."},
		{"self overlap", []string{"aaaa"}, "aaa aaaaaaa", "aaa " + Mark},
		{"views overlap", []string{"61626364", "abcd"}, "x61626364y", "x" + Mark + "y"},
		{"same value twice", []string{"abcdefgh", "abcdefgh"}, "abcdefgh", Mark},
		{"half at the end", []string{"abcdefgh"}, "abcdefg", "abcdefg"},
		{"short is exact", []string{"aBcdE"}, "abcde aBcdE", "abcde " + Mark},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := mustNew(t, tt.secrets...)
			if got := set.String(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			checkSplits(t, set, tt.in, tt.want)
		})
	}
}

// checkSplits cuts the input at each byte, at all bytes and at random.
func checkSplits(t *testing.T, set *Set, in, want string) {
	t.Helper()
	check := func(chunks ...string) {
		t.Helper()
		s, out := set.Stream(), []byte(nil)
		for _, c := range chunks {
			out = s.Append(out, []byte(c))
		}
		if out = s.AppendRest(out); string(out) != want {
			t.Fatalf("chunks %q: got %q, want %q", chunks, out, want)
		}
	}
	for i := range len(in) + 1 {
		check(in[:i], in[i:])
	}
	check(strings.Split(in, "")...) // runes
	rng := rand.New(rand.NewPCG(1, uint64(len(in))))
	for range 20 {
		check(cut(rng, in)...)
	}
	bytewise := make([]string, len(in))
	for i := range bytewise {
		bytewise[i] = in[i : i+1]
	}
	check(bytewise...)
}

func cut(rng *rand.Rand, in string) []string {
	var chunks []string
	for len(in) > 0 {
		n := min(len(in), rng.IntN(40))
		chunks, in = append(chunks, in[:n]), in[n:]
	}
	return chunks
}

// TestDifferential compares with the specification on random texts that are
// made of pieces of forms, so that near misses and overlaps abound.
func TestDifferential(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 11))
	rounds := 1000
	if testing.Short() {
		rounds = 200
	}
	for round := range rounds {
		values := make([]string, 1+rng.IntN(4))
		for i := range values {
			values[i] = randomSecret(rng)
		}
		set, err := New(named(values...)...)
		if err != nil {
			continue
		}
		in := randomText(rng, values)
		want := string(naive([]byte(in), named(values...)...))
		if got := set.String(in); got != want {
			t.Fatalf("round %d: secrets %q\nin   %q\ngot  %q\nwant %q", round, values, in, got, want)
		}
		s, out := set.Stream(), []byte(nil)
		chunks := cut(rng, in)
		for _, c := range chunks {
			out = s.Append(out, []byte(c))
		}
		if out = s.AppendRest(out); string(out) != want {
			t.Fatalf("round %d: secrets %q\nchunks %q\ngot  %q\nwant %q", round, values, chunks, out, want)
		}
	}
}

func randomSecret(rng *rand.Rand) string {
	alphabets := []string{"ab", "aA/+", "xyz\n", "0123456789abcdef", "<\"é\\%&'", "n\\r"}
	alphabet := []rune(alphabets[rng.IntN(len(alphabets))])
	var out strings.Builder
	for range 4 + rng.IntN(40) {
		out.WriteRune(alphabet[rng.IntN(len(alphabet))])
	}
	return out.String()
}

func randomText(rng *rand.Rand, values []string) string {
	forms := &patterns{}
	for i, v := range values {
		forms.addSecret(v, i)
	}
	eols := []string{"\n", "\r\n", `\n`, `\r\n`, `\`, `\r`, "\r", `\r\`}
	var out strings.Builder
	for range rng.IntN(12) {
		list := forms.byView[rng.IntN(int(viewCount))]
		switch n := rng.IntN(10); {
		case n < 6 && len(list) > 0:
			text := list[rng.IntN(len(list))].text
			if rng.IntN(2) == 0 {
				text = strings.NewReplacer("+", "-", "/", "_").Replace(text)
			}
			if rng.IntN(3) == 0 {
				text = strings.ToUpper(text)
			}
			from, to := 0, len(text)
			if rng.IntN(3) == 0 {
				from = rng.IntN(to)
			}
			if rng.IntN(3) == 0 {
				to = from + rng.IntN(to-from)
			}
			text = text[from:to]
			if rng.IntN(2) == 0 {
				text = wrapAt(text, 1+rng.IntN(50), eols[rng.IntN(len(eols))])
			}
			out.WriteString(text)
		case n < 8:
			out.WriteString(strings.Repeat("Qn", rng.IntN(24)) + eols[rng.IntN(len(eols))])
		default:
			out.WriteString(strings.Repeat(". ", rng.IntN(20)))
		}
	}
	return out.String()
}
