package scripting

import (
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// Lua's patterns, matched as its manual says, by backtracking, with each step
// counted: gopher-lua's own matcher can't be stopped, and recurses for each byte.

const (
	matchStepsMost      = 2_000_000 // of one call
	stepsPerInstruction = 16
	chargedSteps        = 1024 // are charged together
	matchDepthMost      = 200
	capturesMost        = 32
	captureOpen         = -1
	capturePosition     = -2
	specials            = "^$*+?.([%-"
)

type matcher struct {
	x        *execution
	l        *lua.LState
	src, pat string
	steps    int
	depth    int
	level    int // captures so far
	captures [capturesMost]struct{ start, length int }
}

func (m *matcher) fail(format string, args ...any) {
	m.x.raisef(m.l, pattern.FaultLua, format, args...)
}

// count counts one step of work.
func (m *matcher) count() {
	m.steps++
	if m.steps%chargedSteps != 0 {
		return
	}
	if m.steps > matchStepsMost {
		m.x.raisef(m.l, pattern.FaultTooCostly, "the pattern %s takes too long on a text of %s bytes", quote(m.pat), thousands(int64(len(m.src))))
	}
	m.x.charge(m.l, chargedSteps/stepsPerInstruction)
}

// at matches the pattern from p on against the text from s on, and gives where
// the match ends; -1: there is none.
func (m *matcher) at(s, p int) int {
	if m.depth++; m.depth > matchDepthMost {
		m.x.raisef(m.l, pattern.FaultTooCostly, "the pattern %s is too complex", quote(m.pat))
	}
	defer func() { m.depth-- }()
	for {
		m.count()
		if p == len(m.pat) {
			return s
		}
		switch m.pat[p] {
		case '(':
			if p+1 < len(m.pat) && m.pat[p+1] == ')' {
				return m.begin(s, p+2, capturePosition)
			}
			return m.begin(s, p+1, captureOpen)
		case ')':
			return m.end(s, p+1)
		case '$':
			if p+1 == len(m.pat) {
				if s == len(m.src) {
					return s
				}
				return -1
			}
		case '%':
			if p+1 < len(m.pat) {
				switch c := m.pat[p+1]; {
				case c == 'b':
					if s = m.balance(s, p+2); s < 0 {
						return -1
					}
					p += 4
					continue
				case c == 'f':
					p += 2
					if p >= len(m.pat) || m.pat[p] != '[' {
						m.fail("the pattern %s has %%f without [ behind it", quote(m.pat))
					}
					next := m.classEnd(p)
					before, after := byte(0), byte(0)
					if s > 0 {
						before = m.src[s-1]
					}
					if s < len(m.src) {
						after = m.src[s]
					}
					if m.inSet(before, p, next-1) || !m.inSet(after, p, next-1) {
						return -1
					}
					p = next
					continue
				case c >= '0' && c <= '9':
					if s = m.back(s, c); s < 0 {
						return -1
					}
					p += 2
					continue
				}
			}
		}
		next := m.classEnd(p)
		one := s < len(m.src) && m.single(m.src[s], p, next)
		var suffix byte
		if next < len(m.pat) {
			suffix = m.pat[next]
		}
		switch suffix {
		case '?':
			if one {
				if end := m.at(s+1, next+1); end >= 0 {
					return end
				}
			}
			p = next + 1
		case '*':
			return m.most(s, p, next)
		case '+':
			if !one {
				return -1
			}
			return m.most(s+1, p, next)
		case '-':
			return m.least(s, p, next)
		default:
			if !one {
				return -1
			}
			s, p = s+1, next
		}
	}
}

// most takes as many of a class as there are, then fewer.
func (m *matcher) most(s, p, next int) int {
	n := 0
	for s+n < len(m.src) && m.single(m.src[s+n], p, next) {
		m.count()
		n++
	}
	for ; n >= 0; n-- {
		if end := m.at(s+n, next+1); end >= 0 {
			return end
		}
	}
	return -1
}

// least takes none of a class, then more.
func (m *matcher) least(s, p, next int) int {
	for {
		if end := m.at(s, next+1); end >= 0 {
			return end
		}
		if s >= len(m.src) || !m.single(m.src[s], p, next) {
			return -1
		}
		s++
	}
}

func (m *matcher) begin(s, p, what int) int {
	if m.level >= capturesMost {
		m.fail("the pattern %s has more than %d captures", quote(m.pat), capturesMost)
	}
	m.captures[m.level].start, m.captures[m.level].length = s, what
	m.level++
	end := m.at(s, p)
	if end < 0 {
		m.level--
	}
	return end
}

func (m *matcher) end(s, p int) int {
	i := m.level - 1
	for i >= 0 && m.captures[i].length != captureOpen {
		i--
	}
	if i < 0 {
		m.fail("the pattern %s has ) without (", quote(m.pat))
	}
	m.captures[i].length = s - m.captures[i].start
	end := m.at(s, p)
	if end < 0 {
		m.captures[i].length = captureOpen
	}
	return end
}

// back matches what an earlier capture has matched.
func (m *matcher) back(s int, digit byte) int {
	i := int(digit - '1')
	if i < 0 || i >= m.level || m.captures[i].length == captureOpen {
		m.fail("the pattern %s has no capture %%%c there", quote(m.pat), digit)
	}
	c := m.captures[i]
	n := max(0, c.length)
	if len(m.src)-s >= n && m.src[c.start:c.start+n] == m.src[s:s+n] {
		m.steps += n / stepsPerInstruction
		return s + n
	}
	return -1
}

// balance matches %bxy.
func (m *matcher) balance(s, p int) int {
	if p+1 >= len(m.pat) {
		m.fail("the pattern %s has %%b without two characters behind it", quote(m.pat))
	}
	if s >= len(m.src) || m.src[s] != m.pat[p] {
		return -1
	}
	open, shut, depth := m.pat[p], m.pat[p+1], 1
	for i := s + 1; i < len(m.src); i++ {
		m.count()
		switch m.src[i] {
		case shut:
			if depth--; depth == 0 {
				return i + 1
			}
		case open:
			depth++
		}
	}
	return -1
}

// classEnd is where the single class at p ends.
func (m *matcher) classEnd(p int) int {
	c := m.pat[p]
	p++
	switch c {
	case '%':
		if p >= len(m.pat) {
			m.fail("the pattern %s ends with %%", quote(m.pat))
		}
		return p + 1
	case '[':
		if p < len(m.pat) && m.pat[p] == '^' {
			p++
		}
		for first := true; ; first = false {
			if p >= len(m.pat) {
				m.fail("the pattern %s has [ without ]", quote(m.pat))
			}
			c := m.pat[p]
			p++
			if c == ']' && !first {
				return p
			}
			if c == '%' {
				p++
			}
		}
	}
	return p
}

func (m *matcher) single(c byte, p, next int) bool {
	switch m.pat[p] {
	case '.':
		return true
	case '%':
		return inClass(c, m.pat[p+1])
	case '[':
		return m.inSet(c, p, next-1)
	}
	return m.pat[p] == c
}

// inSet reports whether c is in the set from its [ at p to its ] at end.
func (m *matcher) inSet(c byte, p, end int) bool {
	is := true
	p++
	if m.pat[p] == '^' {
		is = false
		p++
	}
	m.steps += (end - p) / stepsPerInstruction
	for ; p < end; p++ {
		switch {
		case m.pat[p] == '%':
			p++
			if inClass(c, m.pat[p]) {
				return is
			}
		case p+2 < end && m.pat[p+1] == '-':
			if m.pat[p] <= c && c <= m.pat[p+2] {
				return is
			}
			p += 2
		case m.pat[p] == c:
			return is
		}
	}
	return !is
}

func inClass(c, class byte) bool {
	letter := c|0x20 >= 'a' && c|0x20 <= 'z'
	digit := c >= '0' && c <= '9'
	var is bool
	switch class | 0x20 {
	case 'a':
		is = letter
	case 'c':
		is = c < ' ' || c == 0x7f
	case 'd':
		is = digit
	case 'l':
		is = c >= 'a' && c <= 'z'
	case 'p':
		is = c > ' ' && c < 0x7f && !letter && !digit
	case 's':
		is = c == ' ' || c >= '\t' && c <= '\r'
	case 'u':
		is = c >= 'A' && c <= 'Z'
	case 'w':
		is = letter || digit
	case 'x':
		is = digit || c|0x20 >= 'a' && c|0x20 <= 'f'
	case 'z':
		is = c == 0
	default:
		return class == c
	}
	if class < 'a' {
		return !is
	}
	return is
}

// capture is capture i of a match from s to e; without captures the first is all
// of it.
func (m *matcher) capture(i, s, e int) lua.LValue {
	if i >= m.level {
		if i > 0 {
			m.fail("there is no capture %%%d in the pattern %s", i+1, quote(m.pat))
		}
		return lua.LString(m.src[s:e])
	}
	switch c := m.captures[i]; c.length {
	case capturePosition:
		return lua.LNumber(c.start + 1)
	case captureOpen:
		m.fail("the pattern %s has ( without )", quote(m.pat))
		return lua.LNil
	default:
		return lua.LString(m.src[c.start : c.start+c.length])
	}
}

// push pushes the captures, or with whole all of the match where there are none.
func (m *matcher) push(s, e int, whole bool) int {
	n := m.level
	if n == 0 && whole {
		n = 1
	}
	for i := range n {
		m.l.Push(m.capture(i, s, e))
	}
	return n
}

// from finds the first match that begins at s or later.
func (m *matcher) from(s int, anchored bool) (start, end int) {
	p := 0
	if anchored {
		p = 1
	}
	for ; s <= len(m.src); s++ {
		m.level = 0
		if end := m.at(s, p); end >= 0 {
			return s, end
		}
		if anchored {
			break
		}
	}
	return -1, -1
}

// settle charges for the steps that were not charged yet.
func (m *matcher) settle() {
	m.x.charge(m.l, m.steps%chargedSteps/stepsPerInstruction)
}

func newMatcher(l *lua.LState) *matcher {
	return &matcher{x: of(l), l: l, src: text(l, 1), pat: text(l, 2)}
}

func stringFind(l *lua.LState) int { return findOrMatch(l, true) }

func stringMatch(l *lua.LState) int { return findOrMatch(l, false) }

func findOrMatch(l *lua.LState, find bool) int {
	m := newMatcher(l)
	init := index(l, 3, 1)
	switch {
	case init < 0:
		init = max(len(m.src)+init+1, 1)
	case init == 0:
		init = 1
	}
	if init > len(m.src)+1 {
		l.Push(lua.LNil)
		return 1
	}
	if find && (lua.LVAsBool(l.Get(4)) || !strings.ContainsAny(m.pat, specials)) {
		m.x.chargeBytes(l, len(m.src))
		i := strings.Index(m.src[init-1:], m.pat)
		if i < 0 {
			l.Push(lua.LNil)
			return 1
		}
		l.Push(lua.LNumber(init + i))
		l.Push(lua.LNumber(init + i + len(m.pat) - 1))
		return 2
	}
	s, e := m.from(init-1, strings.HasPrefix(m.pat, "^"))
	m.settle()
	switch {
	case s < 0:
		l.Push(lua.LNil)
		return 1
	case find:
		l.Push(lua.LNumber(s + 1))
		l.Push(lua.LNumber(e))
		return 2 + m.push(s, e, false)
	}
	return m.push(s, e, true)
}

// matches is what the loop over string.gmatch goes through.
type matches struct {
	src, pat string
	at       int
}

func stringGmatch(l *lua.LState) int {
	// One function for each loop, since its state must not be within reach of others.
	state := &matches{src: text(l, 1), pat: text(l, 2)}
	l.Push(&lua.LFunction{IsG: true, Env: of(l).lib.env, GFunction: state.next})
	return 1
}

func (g *matches) next(l *lua.LState) int {
	m := &matcher{x: of(l), l: l, src: g.src, pat: g.pat}
	s, e := m.from(g.at, false)
	m.settle()
	if s < 0 {
		g.at = len(g.src) + 1
		l.Push(lua.LNil)
		return 1
	}
	g.at = e
	if e == s {
		g.at++
	}
	return m.push(s, e, true)
}

func stringGsub(l *lua.LState) int {
	m := newMatcher(l)
	x, repl := m.x, l.Get(3)
	switch repl.(type) {
	case lua.LString, lua.LNumber, *lua.LTable, *lua.LFunction:
	default:
		x.raisef(l, pattern.FaultLua, "string.gsub: expected a text, table or function as argument 3, got %s", article(typeName(repl)))
	}
	left := index(l, 4, len(m.src)+1)
	anchored := strings.HasPrefix(m.pat, "^")
	var b []byte
	s, count := 0, 0
	for count < left {
		m.level = 0
		p := 0
		if anchored {
			p = 1
		}
		e := m.at(s, p)
		if e >= 0 {
			count++
			b = m.replace(b, repl, s, e)
			if len(b) > pattern.MaxString {
				x.fits(l, len(b), "string.gsub")
			}
		}
		switch {
		case e > s:
			s = e
		case s < len(m.src):
			b = append(b, m.src[s])
			s++
		default:
			s++
		}
		if s > len(m.src) || anchored {
			break
		}
	}
	if s < len(m.src) {
		b = append(b, m.src[s:]...)
	}
	m.settle()
	x.fits(l, len(b), "string.gsub")
	l.Push(lua.LString(b))
	l.Push(lua.LNumber(count))
	return 2
}

// replace appends what stands in the place of a match.
func (m *matcher) replace(b []byte, repl lua.LValue, s, e int) []byte {
	var v lua.LValue
	switch r := repl.(type) {
	case *lua.LTable:
		v = m.l.GetTable(r, m.capture(0, s, e))
	case *lua.LFunction:
		m.l.Push(r)
		n := m.push(s, e, true)
		level, captures := m.level, m.captures
		m.l.Call(n, 1)
		m.level, m.captures = level, captures
		v = m.l.Get(-1)
		m.l.Pop(1)
	default:
		t := show(repl)
		m.x.chargeBytes(m.l, len(t))
		for i := 0; i < len(t); i++ {
			if t[i] != '%' || i+1 == len(t) {
				b = append(b, t[i])
				continue
			}
			i++
			switch c := t[i]; {
			case c == '0':
				b = append(b, m.src[s:e]...)
			case c >= '1' && c <= '9':
				b = append(b, show(m.capture(int(c-'1'), s, e))...)
			default:
				b = append(b, c)
			}
			if len(b) > pattern.MaxString {
				m.x.fits(m.l, len(b), "string.gsub")
			}
		}
		return b
	}
	switch v := v.(type) {
	case lua.LString, lua.LNumber:
		return append(b, show(v)...)
	case *lua.LNilType:
		return append(b, m.src[s:e]...)
	case lua.LBool:
		if !bool(v) {
			return append(b, m.src[s:e]...)
		}
	}
	m.x.raisef(m.l, pattern.FaultLua, "string.gsub: expected a text in place of a match, got %s", article(typeName(v)))
	return b
}
