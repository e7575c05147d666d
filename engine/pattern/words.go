package pattern

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const shownMost = 80 // bytes of what was found that a message shows

// clip cuts what a message shows of somebody's text.
func clip(s string) string {
	if len(s) <= shownMost {
		return s
	}
	cut := shownMost
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// quote shows a text, bounded, with control characters escaped.
func quote(s string) string { return strconv.Quote(clip(strings.ToValidUTF8(s, "\uFFFD"))) }
