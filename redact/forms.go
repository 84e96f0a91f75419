package redact

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// viewKind names one normalised reading of the input.
type viewKind int

const (
	// viewExact reads the bytes as they are; it holds forms that are too short
	// to be searched in any letter case.
	viewExact viewKind = iota
	// viewFold reads ASCII letters as lower case.
	viewFold
	// viewHex reads ASCII letters as lower case and passes over line breaks.
	viewHex
	// viewBase64 reads the URL alphabet as the standard one and passes over
	// line breaks.
	viewBase64
	viewCount
)

const (
	// minForm is the shortest form, in bytes, that is searched besides the
	// plain value itself: shorter ones occur in ordinary output by chance.
	minForm = 6
	// minFold is the shortest form, in bytes, that is searched in any case.
	minFold = 8
)

// wraps reports whether the view passes over line breaks (see lineBreak).
func (k viewKind) wraps() bool { return k == viewHex || k == viewBase64 }

// normalise returns how the view reads byte c.
func (k viewKind) normalise(c byte) byte {
	switch {
	case (k == viewFold || k == viewHex) && c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	case k == viewBase64 && c == '-':
		return '+'
	case k == viewBase64 && c == '_':
		return '/'
	}
	return c
}

// pattern is one form as its view reads it.
type pattern struct {
	text   string
	secret int // index of the secret in the Set
}

// patterns collects the forms of all secrets, without duplicates.
type patterns struct {
	byView [viewCount][]pattern
	seen   [viewCount]map[string]bool
}

// add stores a form as the view reads it. Of two secrets with the same form the
// one that was declared first gives its name.
func (p *patterns) add(k viewKind, form string, secret int) {
	text := []byte(form)
	for i, c := range text {
		text[i] = k.normalise(c)
	}
	if p.seen[k] == nil {
		p.seen[k] = make(map[string]bool)
	}
	if p.seen[k][string(text)] {
		return
	}
	p.seen[k][string(text)] = true
	p.byView[k] = append(p.byView[k], pattern{string(text), secret})
}

// addText stores a form of readable text in the view that fits its length.
func (p *patterns) addText(form string, secret int) {
	if len(form) >= minFold {
		p.add(viewFold, form, secret)
		return
	}
	p.add(viewExact, form, secret)
}

// addSecret stores all forms of a value (see the package comment).
func (p *patterns) addSecret(value string, secret int) {
	// A secret read from a file ends in a line feed that nobody prints.
	value = strings.TrimRight(value, "\r\n")
	p.addText(value, secret)
	lf := strings.ReplaceAll(value, "\r\n", "\n")
	crlf := strings.ReplaceAll(lf, "\n", "\r\n")
	bases := []string{value, lf, crlf, strings.TrimSpace(value)}
	if strings.Contains(lf, "\n") {
		for line := range strings.SplitSeq(lf, "\n") {
			bases = append(bases, strings.TrimSpace(line))
		}
	}
	for i, base := range bases {
		// Only the value itself may be shorter than a form.
		if i > 0 && (base == value || len(base) < minForm) {
			continue
		}
		p.addForms(base, secret)
	}
}

// addForms stores the plain and all encoded forms of one text.
func (p *patterns) addForms(base string, secret int) {
	var texts []string
	texts = append(texts, base)
	if len(base) >= minFold {
		texts = append(texts, strings.ToUpper(base), strings.ToLower(base))
	}
	texts = append(texts, quotedForms(base)...)
	texts = append(texts, percentForms(base)...)
	for _, text := range texts {
		if len(text) >= minForm {
			p.addText(text, secret)
		}
	}
	if len(base)*2 >= minForm {
		p.add(viewHex, hex.EncodeToString([]byte(base)), secret)
	}
	for _, text := range base64Forms(base) {
		if len(text) >= minForm {
			p.add(viewBase64, text, secret)
		}
	}
}

// quotedForms returns v as encoders of strings write it, without the quotes.
func quotedForms(v string) []string {
	unquote := func(s string) string { return s[1 : len(s)-1] }
	forms := []string{
		unquote(strconv.Quote(v)), // slog's text handler, %q
		unquote(strconv.QuoteToASCII(v)),
		strings.ReplaceAll(v, `'`, `'\''`),  // shell
		strings.ReplaceAll(v, `'`, `'"'"'`), // shell, as by Python's shlex
		strings.ReplaceAll(v, `'`, `''`),    // YAML
		strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;").Replace(v),
		strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;").Replace(v),
		strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(v),
	}
	for bits := range 1 << 4 {
		e := jsonEscaper{html: bits&1 != 0, slash: bits&2 != 0, ascii: bits&4 != 0, upper: bits&8 != 0}
		// Options that change nothing would cost most of the time of New.
		if e.html && !strings.ContainsAny(v, "<>&") || e.slash && !strings.Contains(v, "/") ||
			e.ascii && !strings.ContainsFunc(v, func(r rune) bool { return r >= 0x7f }) {
			continue
		}
		once := e.escape(v)
		// JSON in JSON is what agents' transcripts are made of.
		twice := jsonEscaper{}.escape(once)
		forms = append(forms, once, twice, jsonEscaper{}.escape(twice))
	}
	return forms
}

// jsonEscaper writes strings as one of the JSON encoders in use does.
type jsonEscaper struct {
	html  bool // <, > and & as \u00XX (Go)
	slash bool // / as \/ (PHP)
	ascii bool // everything beyond ASCII as \uXXXX (Python)
	upper bool // hex digits in upper case
}

func (e jsonEscaper) escape(v string) string {
	var out strings.Builder
	format := `\u%04x`
	if e.upper {
		format = `\u%04X`
	}
	for i := 0; i < len(v); {
		r, size := utf8.DecodeRuneInString(v[i:])
		raw := v[i : i+size]
		i += size
		switch {
		case r == '"' || r == '\\' || r == '/' && e.slash:
			out.WriteByte('\\')
			out.WriteString(raw)
		case strings.ContainsRune("\b\f\n\r\t", r):
			out.WriteByte('\\')
			out.WriteByte("btn fr"[r-'\b'])
		case r < ' ', e.html && strings.ContainsRune("<>&", r), r == '\u2028' || r == '\u2029', e.ascii && r == 0x7f:
			fmt.Fprintf(&out, format, r)
		case r > 0xffff && e.ascii:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, format+format, high, low)
		case r > 0x7f && e.ascii:
			fmt.Fprintf(&out, format, r)
		default:
			out.WriteString(raw)
		}
	}
	return out.String()
}

// Bytes that the encoders in use leave alone besides letters and digits.
var percentSafe = [...]string{
	"-_.~",                 // RFC 3986 unreserved; Go's query form, curl, Python's quote(safe="")
	"-_.~/",                // Python's quote
	"-_.",                  // Python 2 and Java (with *)
	"-_.*",                 // HTML forms, Java
	"-_.~!*'()",            // encodeURIComponent
	"-_.~$&+=:@",           // Go's path segment
	"-_.~$&+,/:;=@",        // Go's whole path
	"-_.~!$&'()*+,;=:@/",   // RFC 3986 path
	"-_.~!*'();/?:@&=+$,#", // encodeURI
}

// percentForms returns v percent-encoded in all usual ways.
func percentForms(v string) []string {
	const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var forms []string
	for _, digits := range []string{"0123456789ABCDEF", "0123456789abcdef"} {
		for _, safe := range percentSafe {
			form := percentEncode(v, alnum+safe, digits)
			forms = append(forms, form, strings.ReplaceAll(form, "%20", "+"))
		}
		forms = append(forms, percentEncode(v, "", digits))
	}
	return forms
}

func percentEncode(v, safe, digits string) string {
	var out strings.Builder
	for i := range len(v) {
		c := v[i]
		if strings.IndexByte(safe, c) >= 0 {
			out.WriteByte(c)
			continue
		}
		out.WriteByte('%')
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// base64Forms returns, for each alignment, the characters of a base64 text that
// depend on nothing but v; and the same up to the end of the text, if v ends
// the text alone or with a line feed (echo "$SECRET" | base64).
func base64Forms(v string) []string {
	var forms []string
	for offset := range 3 {
		lead := strings.Repeat("\x00", offset)
		// 8*offset bits belong to the neighbour: skip each character that holds one.
		skip := (8*offset + 5) / 6
		for _, tail := range []string{"", "\n"} {
			text := lead + v + tail
			padded := base64.StdEncoding.EncodeToString([]byte(text))
			stable := 8 * len(text) / 6
			if stable <= skip {
				continue
			}
			forms = append(forms, padded[skip:stable], padded[skip:],
				strings.TrimRight(padded[skip:], "="))
		}
	}
	return forms
}
