package agent

import (
	"errors"
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// word is a shell word as far as it is known without running anything.
type word struct {
	text  string // after quote removal; when not known, the part before the unknown
	known bool   // no expansion, glob or brace in it
}

// mayBeFlag says whether the word could begin with a dash when it is expanded, or
// vanish, or become several words.
func (w word) mayBeFlag() bool { return strings.HasPrefix(w.text, "-") || !w.known && w.text == "" }

func (w word) String() string {
	if w.known {
		return w.text
	}
	return w.text + "…"
}

// resolve does quote removal. Everything that the shell would expand makes the
// word unknown; its known beginning is kept.
func resolve(w *syntax.Word) word {
	var b strings.Builder
	for i, part := range w.Parts {
		switch part := part.(type) {
		case *syntax.Lit:
			text, whole := unquoted(part.Value, i == 0)
			b.WriteString(text)
			if !whole {
				return word{text: b.String()}
			}
		case *syntax.SglQuoted:
			if part.Dollar { // $'…' has escapes of its own
				return word{text: b.String()}
			}
			b.WriteString(part.Value)
		case *syntax.DblQuoted:
			if part.Dollar {
				return word{text: b.String()}
			}
			for _, inner := range part.Parts {
				lit, ok := inner.(*syntax.Lit)
				if !ok {
					return word{text: b.String()}
				}
				b.WriteString(doubleQuoted(lit.Value))
			}
		default:
			return word{text: b.String()}
		}
	}
	return word{text: b.String(), known: true}
}

// unquoted removes backslashes; whole is false when the shell would expand the rest.
func unquoted(s string, first bool) (text string, whole bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\\':
			i++
			if i < len(s) && s[i] != '\n' {
				b.WriteByte(s[i])
			}
		case '*', '?', '[':
			return b.String(), false
		case '{':
			if strings.HasPrefix(s[i:], "{}") { // find and xargs; no brace expansion
				b.WriteString("{}")
				i++
				continue
			}
			return b.String(), false
		case '~':
			if first && i == 0 {
				return "", false
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

func doubleQuoted(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte("$`\"\\\n", s[i+1]) >= 0 {
			i++
			if s[i] == '\n' {
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func parseShell(text string) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
}

// patternWords reads the words of a Bash rule: one simple command of plain words.
func patternWords(text string) ([]string, error) {
	const want = "a pattern is one simple command of plain words, with :* at its end when more words may follow, e.g. Bash(go test:*)"
	if err := plainText(text); err != nil {
		return nil, err
	}
	file, err := parseShell(text)
	if err != nil {
		return nil, fmt.Errorf("parse the pattern: %w", err)
	}
	if len(file.Stmts) != 1 {
		return nil, errors.New(want)
	}
	st := file.Stmts[0]
	call, ok := st.Cmd.(*syntax.CallExpr)
	if !ok || st.Negated || st.Background || st.Coprocess || len(st.Redirs) > 0 || len(call.Assigns) > 0 || len(call.Args) == 0 {
		return nil, errors.New(want)
	}
	words := make([]string, 0, len(call.Args))
	for _, a := range call.Args {
		w := resolve(a)
		if !w.known {
			return nil, errors.New(want)
		}
		words = append(words, w.text)
	}
	return words, nil
}

// plainText refuses control characters, on which parsers of shell text differ.
func plainText(text string) error {
	for _, r := range text {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == '\uFFFD' {
			return fmt.Errorf("the text holds the control or invalid character %U", r)
		}
	}
	return nil
}
