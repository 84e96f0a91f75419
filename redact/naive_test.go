package redact

import (
	"bytes"
	"regexp"
	"strings"
)

// wrapped is the rule of lineBreak in another language: what a wrapping view
// passes over is the longest escaped or plain line break, or a part of one,
// after 32 characters of base64.
var wrapped = regexp.MustCompile(`^[A-Za-z0-9+/_-]{32}(?:\n|\r\n|\\n|\\r\\n|\\r\\|\\r|\\|\r)$`)

// naive is the specification of a Set, without streams, filters and automata:
// it reads each view as a whole and looks for each form at each position.
func naive(in []byte, secrets ...Secret) []byte {
	forms := &patterns{}
	for i, s := range secrets {
		forms.addSecret(s.Value, i)
	}
	covered := make([]bool, len(in))
	for k := range viewCount {
		var text []byte
		var at []int
		for i, c := range in {
			if k.wraps() && naiveBreak(in[:i+1]) {
				continue
			}
			text, at = append(text, k.normalise(c)), append(at, i)
		}
		for _, form := range forms.byView[k] {
			for from := 0; ; from++ {
				i := bytes.Index(text[from:], []byte(form.text))
				if i < 0 {
					break
				}
				from += i
				for j := at[from]; j <= at[from+len(form.text)-1]; j++ {
					covered[j] = true
				}
			}
		}
	}
	var out []byte
	for i, c := range in {
		switch {
		case !covered[i]:
			out = append(out, c)
		case i == 0 || !covered[i-1]:
			out = append(out, Mark...)
		}
	}
	return out
}

func naiveBreak(upTo []byte) bool {
	if !strings.ContainsRune("\r\n\\rn", rune(upTo[len(upTo)-1])) {
		return false
	}
	for n := 33; n <= 36 && n <= len(upTo); n++ {
		if wrapped.Match(upTo[len(upTo)-n:]) {
			return true
		}
	}
	return false
}
