package query

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// kind is a token's sort.
type kind uint8

const (
	tokenEnd kind = iota
	tokenWord
	tokenQuoted   // [[x]]
	tokenNumber   // 12, 1.5, 1e3, 0xFF
	tokenDuration // 15m
	tokenString
	tokenSign // everything else
)

// token is a piece of the text. value is a string's or quoted name's content,
// else what stands in the text.
type token struct {
	kind   kind
	value  string
	number float64
	at     int // byte offsets in the text
	end    int
}

// lexer cuts a text into tokens, one call of next each.
type lexer struct {
	faults
	at    int
	after kind // the token before: a '.' behind a name is no decimal point
}

// next returns the token at the current place. After an error it returns the
// end of the text.
func (l *lexer) next() token {
	t := l.scan()
	if l.err != nil {
		t = token{kind: tokenEnd, at: len(l.text), end: len(l.text)}
	}
	l.after = t.kind
	return t
}

func (l *lexer) scan() token {
	l.space()
	start := l.at
	if start >= len(l.text) {
		return token{kind: tokenEnd, at: start, end: start}
	}
	c := l.text[start]
	r, size := utf8.DecodeRuneInString(l.text[start:])
	switch {
	case startsName(r):
		l.at += size
		l.name()
		return l.cut(tokenWord, start)
	case isDigit(c), c == '.' && l.after != tokenWord && l.after != tokenQuoted && l.digit(1):
		return l.number(start)
	case c == '\'' || c == '"':
		return l.string(start)
	case strings.HasPrefix(l.text[start:], "[["):
		return l.quoted(start)
	}
	for _, sign := range [...]string{"<=", ">=", "<>", "!=", "==", "&&", "||", "=~"} {
		if strings.HasPrefix(l.text[start:], sign) {
			l.at += len(sign)
			return l.cut(tokenSign, start)
		}
	}
	if strings.IndexByte("()[]*,.=<>+-/%;!", c) >= 0 {
		l.at++
		return l.cut(tokenSign, start)
	}
	found := strconv.QuoteRune(r)
	if r == utf8.RuneError && size == 1 {
		found = "a byte that is not UTF-8"
	}
	l.fail(start, found, "a name, a value or an operator")
	return token{}
}

func (l *lexer) cut(k kind, start int) token {
	return token{kind: k, value: l.text[start:l.at], at: start, end: l.at}
}

// space skips blanks and comments.
func (l *lexer) space() {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			l.at++
		case strings.HasPrefix(l.text[l.at:], "/*"):
			end := strings.Index(l.text[l.at+2:], "*/")
			if end < 0 {
				l.fail(l.at, "a comment without its end", "*/ behind it")
				return
			}
			l.at += end + 4
		default:
			return
		}
	}
}

func startsName(r rune) bool {
	return r == '_' || r == '$' || unicode.IsLetter(r) && r != utf8.RuneError
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// digit reports whether there is a digit n bytes ahead.
func (l *lexer) digit(n int) bool { return l.at+n < len(l.text) && isDigit(l.text[l.at+n]) }

// name goes on to the end of a name.
func (l *lexer) name() {
	for l.at < len(l.text) {
		r, size := utf8.DecodeRuneInString(l.text[l.at:])
		if !startsName(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
			return
		}
		l.at += size
	}
}

func (l *lexer) digits() {
	for l.digit(0) {
		l.at++
	}
}

// number reads a number, or a duration, which is one with a letter behind it.
func (l *lexer) number(start int) token {
	if c := l.text[start:]; strings.HasPrefix(c, "0x") || strings.HasPrefix(c, "0X") {
		l.at += 2
		l.alphanumerics()
		t := l.cut(tokenNumber, start)
		n, err := strconv.ParseUint(t.value[2:], 16, 64)
		if err != nil {
			l.fail(start, strconv.Quote(clip(t.value)), "a hexadecimal number such as 0xFF, of at most 16 digits")
		}
		t.number = float64(n)
		return t
	}
	l.digits()
	if l.at < len(l.text) && l.text[l.at] == '.' {
		l.at++
		l.digits()
	}
	if l.exponent() {
		l.digits()
	}
	if r, _ := utf8.DecodeRuneInString(l.text[l.at:]); startsName(r) {
		l.name()
		return l.cut(tokenDuration, start)
	}
	t := l.cut(tokenNumber, start)
	n, err := strconv.ParseFloat(t.value, 64)
	if err != nil {
		l.fail(start, strconv.Quote(clip(t.value)), "a number that a 64-bit float can hold")
	}
	t.number = n
	return t
}

// alphanumerics goes on over letters and digits, wherever they come first.
func (l *lexer) alphanumerics() {
	for l.at < len(l.text) && (isDigit(l.text[l.at]) || startsName(rune(l.text[l.at]))) {
		l.at++
	}
}

// exponent steps over an 'e' and its sign when digits follow.
func (l *lexer) exponent() bool {
	if l.at >= len(l.text) || l.text[l.at] != 'e' && l.text[l.at] != 'E' {
		return false
	}
	n := 1
	if l.at+1 < len(l.text) && (l.text[l.at+1] == '+' || l.text[l.at+1] == '-') {
		n = 2
	}
	if !l.digit(n) {
		return false
	}
	l.at += n
	return true
}

// quoted reads [[x]]. Of a run of closing brackets the last two close it, but
// ]]]] is ]] in the name, an extension: ]]]]]] is that and the end.
func (l *lexer) quoted(start int) token {
	end := start + 2
	for closed := false; !closed; {
		next := strings.Index(l.text[end:], "]]")
		if next < 0 {
			expected := "]] behind the quoted name"
			if end > start+2 {
				expected += "; ]]]] is ]] in it"
			}
			l.fail(start, "[[ without its end", expected)
			return token{}
		}
		end += next
		run := len(l.text[end:]) - len(strings.TrimLeft(l.text[end:], "]"))
		rest := run
		if !l.strict {
			rest %= 4
		}
		end += run
		if closed = rest >= 2; closed {
			end -= 2
		}
	}
	l.at = end + 2
	t := l.cut(tokenQuoted, start)
	t.value = l.text[start+2 : end]
	if !l.strict {
		t.value = strings.ReplaceAll(t.value, "]]]]", "]]")
	}
	if t.value == "" || !utf8.ValidString(t.value) {
		l.fail(start, "[[ ]] without a name", "a property's name in it, as in tags.[[my-key]]")
	}
	return t
}

// string reads a string in single or double quotes.
func (l *lexer) string(start int) token {
	quote := l.text[start]
	var b strings.Builder
	l.at++
	from := l.at // what is not yet in b
	for l.at < len(l.text) {
		switch l.text[l.at] {
		case quote:
			t := token{kind: tokenString, at: start, end: l.at + 1}
			if b.Len() == 0 {
				t.value = l.text[from:l.at]
			} else {
				b.WriteString(l.text[from:l.at])
				t.value = b.String()
			}
			l.at++
			if !utf8.ValidString(t.value) {
				l.fail(start, "a string that is not UTF-8", "UTF-8")
			}
			if l.at < len(l.text) && l.text[l.at] == quote {
				l.fail(l.at, "a doubled quote", `a backslash before a quote in a string: \`+string(quote))
			}
			return t
		case '\\':
			b.WriteString(l.text[from:l.at])
			r := l.escape()
			if l.err != nil {
				return token{}
			}
			b.WriteRune(r)
			from = l.at
		default:
			l.at++
		}
	}
	l.fail(start, "a string without its end", fmt.Sprintf("%c behind it", quote))
	return token{}
}

// escape reads what a backslash begins.
func (l *lexer) escape() rune {
	start := l.at
	if start+1 >= len(l.text) {
		l.fail(start, "a backslash at the end", `one of \' \" \\ \uXXXX`)
		return 0
	}
	l.at += 2
	switch c := l.text[start+1]; c {
	case '\'', '"', '\\', '/':
		return rune(c)
	case 'n':
		return '\n'
	case 't':
		return '\t'
	case 'r':
		return '\r'
	case 'u':
		r, ok := hexUnit(l.text[start:])
		l.at += 4
		if ok && utf16.IsSurrogate(r) {
			low, more := hexUnit(l.text[l.at:])
			r = utf16.DecodeRune(r, low)
			ok = more && r != utf8.RuneError
			l.at += 6
		}
		if !ok {
			l.fail(start, brokenEscape, escapeExpected)
			return 0
		}
		return r
	}
	r, _ := utf8.DecodeRuneInString(l.text[start+1:])
	l.fail(start, fmt.Sprintf("the unknown escape \\%c", r), `one of \' \" \\ \n \r \t \uXXXX; a backslash itself is \\`)
	return 0
}

// What is said of a wrong \u escape.
const (
	brokenEscape   = `a broken \u escape`
	escapeExpected = `\u and four hexadecimal digits, as in \u00e9; two of them for what is beyond \uffff`
)

// unitBytes is how long \uXXXX is.
const unitBytes = 6

// hexUnit reads \uXXXX at the start of s.
func hexUnit(s string) (rune, bool) {
	if len(s) < unitBytes || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:unitBytes], 16, 16)
	return rune(n), err == nil
}
