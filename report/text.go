package report

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// Seconds is a duration that JSON shows as a number of seconds.
type Seconds time.Duration

// MarshalJSON writes seconds with milliseconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(s).Round(time.Millisecond).Milliseconds())/1e3, 'f', -1, 64), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("read seconds: %w", err)
	}
	*s = Seconds(math.Round(f*1e3) * 1e6)
	return nil
}

// duration in words: 3 ms, 1.2 s, 2 m 05 s, 3 h 07 m.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0 ms"
	case d < 999500*time.Microsecond:
		return strconv.FormatInt(d.Round(time.Millisecond).Milliseconds(), 10) + " ms"
	case d < 59950*time.Millisecond:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour-500*time.Millisecond:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d m %02d s", d/time.Minute, d%time.Minute/time.Second)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%d h %02d m", d/time.Hour, d%time.Hour/time.Minute)
}

// count with its noun: 1 file, 2 files.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func money(usd float64) string {
	if usd == 0 {
		return ""
	}
	if usd < 0.01 {
		return fmt.Sprintf("$%.4f", usd)
	}
	return fmt.Sprintf("$%.2f", usd)
}

func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// clip cuts text that is clean to w columns; colours in it are kept closed.
func (s Style) clip(text string, w int) string {
	if w <= 0 {
		return ""
	}
	if ansi.StringWidth(text) <= w {
		return text
	}
	tail := s.glyphs().ellipsis
	if w <= ansi.StringWidth(tail) {
		tail = ""
	}
	return ansi.Truncate(text, w, tail)
}

// pad cuts and fills to exactly w columns.
func (s Style) pad(text string, w int) string {
	text = s.clip(text, w)
	if n := w - ansi.StringWidth(text); n > 0 {
		text += strings.Repeat(" ", n)
	}
	return text
}

// wrap breaks clean text at spaces into lines of at most w columns; words that
// are longer are broken.
func wrap(text string, w int) []string {
	if w < 8 {
		w = 8
	}
	return strings.Split(ansi.Wrap(text, w, ""), "\n")
}
