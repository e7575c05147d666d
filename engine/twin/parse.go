package twin

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// What a parse may cost whatever the caller allows: a value takes 88 bytes in
// memory and at least two in JSON.
const (
	maxParseBytes  = 8 << 20
	maxParseValues = 500_000
)

// parser reads one JSON document in one pass. Strings without escapes are cut
// out of the text without copying.
type parser struct {
	text   string
	at     int
	values int
	stack  []member // members of the containers that are still open
	path   trail    // keys of the value in hand
	of     string   // what bytes are counted in, as " of tags"; empty: what the caller sent
}

func (p *parser) fail(found, expected string) error {
	return &InvalidError{Path: p.path.shown(), Reason: fmt.Sprintf("found %s at byte %d%s", found, p.at, p.of), Expected: expected}
}

// here names what is at the current byte for an error.
func (p *parser) here() string {
	if p.at >= len(p.text) {
		return "the end of the text"
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.at:])
	return fmt.Sprintf("%q", r)
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) next(c byte) bool {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) parse() (node, error) {
	p.space()
	if p.at >= len(p.text) || p.text[p.at] != '{' {
		return node{}, p.fail(p.here(), "a JSON object")
	}
	n, err := p.value(1)
	if err != nil {
		return node{}, err
	}
	p.space()
	if p.at < len(p.text) {
		return node{}, p.fail(p.here()+" after the document", "the end of the text")
	}
	return n, nil
}

// value reads a value; depth is the number of the container it would be.
func (p *parser) value(depth int) (node, error) {
	p.space()
	p.values++
	if p.values > maxParseValues {
		return node{}, &InvalidError{Path: p.path.shown(), Reason: fmt.Sprintf("found more than %d values", maxParseValues), Expected: "fewer", TooLarge: true}
	}
	if p.at >= len(p.text) {
		return node{}, p.fail(p.here(), "a JSON value")
	}
	switch c := p.text[p.at]; {
	case c == '{' || c == '[':
		if depth > maxDepth {
			return node{}, p.fail(fmt.Sprintf("more than %d nested objects and arrays", maxDepth), "a flatter document")
		}
		p.at++
		if c == '{' {
			return p.object(depth)
		}
		return p.array(depth)
	case c == '"':
		s, err := p.string()
		return node{kind: kindString, text: s}, err
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case strings.HasPrefix(p.text[p.at:], "true"):
		p.at += 4
		return node{kind: kindTrue}, nil
	case strings.HasPrefix(p.text[p.at:], "false"):
		p.at += 5
		return node{kind: kindFalse}, nil
	case strings.HasPrefix(p.text[p.at:], "null"):
		p.at += 4
		return node{kind: kindNull}, nil
	default:
		return node{}, p.fail(p.here(), "a JSON value")
	}
}

func (p *parser) object(depth int) (node, error) {
	base := len(p.stack)
	var index map[string]bool
	if p.next('}') {
		return node{kind: kindObject}, nil
	}
	for {
		p.space()
		start := p.at
		if p.at >= len(p.text) || p.text[p.at] != '"' {
			return node{}, p.fail(p.here(), "a key in double quotes")
		}
		key, err := p.string()
		if err != nil {
			return node{}, err
		}
		if p.known(base, key, &index) {
			p.at = start
			return node{}, p.fail("the key "+quote(key)+" twice in one object", "each key once")
		}
		if !p.next(':') {
			return node{}, p.fail(p.here(), "':' after the key")
		}
		p.path = append(p.path, key)
		v, err := p.value(depth + 1)
		if err != nil {
			return node{}, err
		}
		p.path = p.path[:len(p.path)-1]
		p.stack = append(p.stack, member{key, v})
		if p.next('}') {
			return node{kind: kindObject, members: p.pop(base)}, nil
		}
		if !p.next(',') {
			return node{}, p.fail(p.here(), "',' or '}'")
		}
	}
}

// known reports whether the object that began at base has the key already.
func (p *parser) known(base int, key string, index *map[string]bool) bool {
	open := p.stack[base:]
	if len(open) <= manyMembers {
		for i := range open {
			if open[i].key == key {
				return true
			}
		}
		return false
	}
	if *index == nil {
		*index = make(map[string]bool, 2*len(open))
		for i := range open {
			(*index)[open[i].key] = true
		}
	}
	seen := (*index)[key]
	(*index)[key] = true
	return seen
}

func (p *parser) array(depth int) (node, error) {
	base := len(p.stack)
	if p.next(']') {
		return node{kind: kindArray}, nil
	}
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return node{}, err
		}
		p.stack = append(p.stack, member{value: v})
		if p.next(']') {
			return node{kind: kindArray, members: p.pop(base)}, nil
		}
		if !p.next(',') {
			return node{}, p.fail(p.here(), "',' or ']'")
		}
	}
}

func (p *parser) pop(base int) []member {
	m := make([]member, len(p.stack)-base)
	copy(m, p.stack[base:])
	clear(p.stack[base:])
	p.stack = p.stack[:base]
	return m
}

func (p *parser) number() (node, error) {
	start := p.at
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case '0' <= c && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			p.at++
			continue
		}
		break
	}
	s := p.text[start:p.at]
	if fault := numberFault(s); fault != "" {
		p.at = start
		return node{}, p.fail(fault, fmt.Sprintf("a JSON number of at most %d characters, up to %g", maxNumberBytes, math.MaxFloat64))
	}
	return node{kind: kindNumber, text: s}, nil
}

// string reads a string; the current byte is its opening quote.
func (p *parser) string() (string, error) {
	p.at++
	start := p.at
	for p.at < len(p.text) {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return p.text[start : p.at-1], nil
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return "", p.fail(fmt.Sprintf("the control character %q in a string", c), "it escaped")
		}
		p.at++
	}
	return "", p.fail(p.here(), "the closing quote of a string")
}

// escaped goes on with a string in which an escape was found.
func (p *parser) escaped(start int) (string, error) {
	b := append(make([]byte, 0, p.at-start+32), p.text[start:p.at]...)
	for p.at < len(p.text) {
		c := p.text[p.at]
		switch {
		case c == '"':
			p.at++
			return string(b), nil
		case c == '\\':
			var err error
			if b, err = p.escape(b); err != nil {
				return "", err
			}
			continue
		case c < ' ':
			return "", p.fail(fmt.Sprintf("the control character %q in a string", c), "it escaped")
		}
		b = append(b, c)
		p.at++
	}
	return "", p.fail(p.here(), "the closing quote of a string")
}

func (p *parser) escape(b []byte) ([]byte, error) {
	rest := p.text[p.at:]
	if len(rest) < 2 {
		p.at = len(p.text)
		return nil, p.fail(p.here(), "the closing quote of a string")
	}
	c := rest[1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		r, n := unicodeEscape(rest)
		if n == 0 {
			return nil, p.fail("a broken \\u escape", "\\u and four hexadecimal digits")
		}
		if utf16.IsSurrogate(r) {
			low, m := unicodeEscape(rest[n:])
			if r = utf16.DecodeRune(r, low); m == 0 || r == utf8.RuneError {
				return nil, p.fail("half of a surrogate pair", "both halves of the pair, or the character itself")
			}
			n += m
		}
		p.at += n
		return utf8.AppendRune(b, r), nil
	default:
		return nil, p.fail(fmt.Sprintf("the unknown escape %q", rest[:2]), `one of \" \\ \/ \b \f \n \r \t \uXXXX`)
	}
	p.at += 2
	return append(b, c), nil
}

// unicodeEscape reads \uXXXX at the start of s; n is 0 when it is not there.
func unicodeEscape(s string) (r rune, n int) {
	const length = 6
	if len(s) < length || s[0] != '\\' || s[1] != 'u' {
		return 0, 0
	}
	for i := 2; i < length; i++ {
		c := s[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, 0
		}
		r = r<<4 | rune(c)
	}
	return r, length
}
