package query

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// like is a pattern of LIKE: pieces between the % signs.
type like struct {
	pieces []piece
}

// piece is what stands between two % signs. Without _ it is text alone.
type piece struct {
	text  string
	runes []rune // when there are _, which are anyRune
}

const anyRune rune = -1

func compileLike(pattern string) like {
	var l like
	var text strings.Builder
	var runes []rune
	wild := false
	flush := func() {
		p := piece{text: text.String()}
		if wild {
			p.runes = runes
		}
		l.pieces = append(l.pieces, p)
		text.Reset()
		runes, wild = nil, false
	}
	escaped := false
	for _, r := range pattern {
		switch {
		case !escaped && r == '\\':
			escaped = true
			continue
		case !escaped && r == '%':
			flush()
			continue
		case !escaped && r == '_':
			wild = true
			runes = append(runes, anyRune)
		default:
			text.WriteRune(r)
			runes = append(runes, r)
		}
		escaped = false
	}
	if escaped { // a backslash that ends the pattern is itself
		text.WriteByte('\\')
		runes = append(runes, '\\')
	}
	flush()
	return l
}

// steps returns how many a match takes for a character: a piece with _ is tried
// at each place.
func (l like) steps() int {
	n := 1
	for _, p := range l.pieces {
		n += len(p.runes)
	}
	return n
}

// match reports whether the whole of s is what the pattern stands for. Pieces
// are found from the left, each at its first place, which is enough.
func (l like) match(s string) bool {
	first, last := l.pieces[0], l.pieces[len(l.pieces)-1]
	n := first.prefix(s)
	if n < 0 {
		return false
	}
	s = s[n:]
	if len(l.pieces) == 1 {
		return s == ""
	}
	for _, p := range l.pieces[1 : len(l.pieces)-1] {
		if n = p.find(s); n < 0 {
			return false
		}
		s = s[n:]
	}
	return last.suffix(s)
}

// prefix returns how many bytes of s the piece takes at its start, or -1.
func (p piece) prefix(s string) int {
	if p.runes == nil {
		if !strings.HasPrefix(s, p.text) {
			return -1
		}
		return len(p.text)
	}
	at := 0
	for _, want := range p.runes {
		r, size := utf8.DecodeRuneInString(s[at:])
		if size == 0 || want != anyRune && want != r {
			return -1
		}
		at += size
	}
	return at
}

// find returns the byte behind the piece's first place in s, or -1.
func (p piece) find(s string) int {
	if p.runes == nil {
		i := strings.Index(s, p.text)
		if i < 0 {
			return -1
		}
		return i + len(p.text)
	}
	for at := 0; ; {
		if n := p.prefix(s[at:]); n >= 0 {
			return at + n
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		if size == 0 {
			return -1
		}
		at += size
	}
}

// suffix reports whether s ends with the piece.
func (p piece) suffix(s string) bool {
	if p.runes == nil {
		return strings.HasSuffix(s, p.text)
	}
	n := utf8.RuneCountInString(s) - len(p.runes)
	return n >= 0 && p.prefix(skipRunes(s, n)) >= 0
}

// compileRegexp compiles a pattern that is bounded in what it costs a character:
// the time of a match is that of its instructions times the length of the text.
func compileRegexp(pattern string) (re *regexp.Regexp, steps int, err error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, 0, fmt.Errorf("RE2's syntax: %w", err)
	}
	if steps = machineSize(tree); steps > maxMachine {
		return nil, 0, fmt.Errorf("a simpler one: its parts and repetitions make more than %d steps a character", maxMachine)
	}
	re, err = regexp.Compile(pattern)
	return re, steps, err
}

// machineSize returns how many instructions a regular expression compiles to,
// or more than maxMachine. It is estimated from below before repetitions are
// written out, so that nothing large is.
func machineSize(re *syntax.Regexp) int {
	if n := leastSize(re); n > maxMachine {
		return n
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return maxMachine + 1
	}
	return len(prog.Inst)
}

func leastSize(re *syntax.Regexp) int {
	size := 1
	switch {
	case re.Op == syntax.OpLiteral:
		size = len(re.Rune)
	case len(re.Sub) > 0:
		size = 0
	}
	for _, sub := range re.Sub {
		size += leastSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		size *= max(re.Max, re.Min, 1)
	}
	return min(size, maxMachine+1)
}
