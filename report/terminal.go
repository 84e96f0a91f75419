package report

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// Terminal is what is known of a file that text goes to.
type Terminal struct {
	Is            bool // a terminal
	Dumb          bool // TERM=dumb
	Width, Height int  // columns and lines, 0 when unknown
	Color         bool
	ASCII         bool
}

// LookTerminal asks the kernel and the environment, never the terminal itself.
// Colour: a terminal that is not dumb, unless NO_COLOR is set to anything
// (no-color.org). COLUMNS is used where the kernel does not know the width.
func LookTerminal(f *os.File, getenv func(string) string) Terminal {
	t := Terminal{ASCII: !utf8Locale(getenv), Dumb: getenv("TERM") == "dumb"}
	if f != nil && term.IsTerminal(int(f.Fd())) {
		t.Is = true
		if w, h, err := term.GetSize(int(f.Fd())); err == nil {
			t.Width, t.Height = w, h
		}
	}
	if t.Width == 0 {
		if n, err := strconv.Atoi(getenv("COLUMNS")); err == nil && n > 0 && n < 10_000 {
			t.Width = n
		}
	}
	t.Color = t.Is && !t.Dumb && getenv("NO_COLOR") == ""
	return t
}

// Style for this terminal. What is no terminal gets 120 columns, so that CI logs
// and pipes are not cut at 80.
func (t Terminal) Style() Style {
	w := t.Width
	if w == 0 && !t.Is {
		w = 120
	}
	return Style{Width: w, Color: t.Color, ASCII: t.ASCII}
}

// utf8Locale follows POSIX: the first of the three that is not empty decides.
func utf8Locale(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}
