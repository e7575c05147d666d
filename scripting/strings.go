package scripting

import (
	"math"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// The string library is Lua 5.1's, with texts of at most pattern.MaxString bytes,
// and each byte that is made or looked at counts.

func stringFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"byte": stringByte, "char": stringChar, "len": stringLen, "lower": stringLower, "upper": stringUpper, "rep": stringRep,
		"reverse": stringReverse, "sub": stringSub, "format": stringFormat,
		"find": stringFind, "match": stringMatch, "gmatch": stringGmatch, "gsub": stringGsub,
	}
}

// text is a text as an argument; numbers are texts, as everywhere in Lua.
func text(l *lua.LState, n int) string {
	switch v := l.Get(n).(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return formatNumber(float64(v))
	}
	of(l).raisef(l, pattern.FaultLua, "expected a text as argument %d, got %s", n, article(typeName(l.Get(n))))
	return ""
}

// span makes the positions i and j of Lua, from 1 and from the end when negative,
// into those of a slice.
func span(n, i, j int) (from, to int) {
	if i < 0 {
		i = max(n+i+1, 1)
	} else if i == 0 {
		i = 1
	}
	if j < 0 {
		j = n + j + 1
	}
	j = min(j, n)
	if i > j {
		return 0, 0
	}
	return i - 1, j
}

func stringByte(l *lua.LState) int {
	s := text(l, 1)
	i := index(l, 2, 1)
	from, to := span(len(s), i, index(l, 3, i))
	if to-from > valuesMost {
		return of(l).raisef(l, pattern.FaultTooCostly, "string.byte would give %d values, at most %d", to-from, valuesMost)
	}
	for _, c := range []byte(s[from:to]) {
		l.Push(lua.LNumber(c))
	}
	return to - from
}

func stringChar(l *lua.LState) int {
	b := make([]byte, l.GetTop())
	for i := range b {
		n := index(l, i+1, 0)
		if n < 0 || n > 255 {
			return of(l).raisef(l, pattern.FaultLua, "string.char takes numbers from 0 to 255, not %d", n)
		}
		b[i] = byte(n)
	}
	l.Push(lua.LString(b))
	return 1
}

func stringLen(l *lua.LState) int {
	l.Push(lua.LNumber(len(text(l, 1))))
	return 1
}

func stringLower(l *lua.LState) int { return mapBytes(l, 'A', 'Z') }

func stringUpper(l *lua.LState) int { return mapBytes(l, 'a', 'z') }

// mapBytes turns the letters from a to z, in ASCII, into those of the other case.
func mapBytes(l *lua.LState, a, z byte) int {
	s := text(l, 1)
	of(l).chargeBytes(l, len(s))
	b := []byte(s)
	for i, c := range b {
		if c >= a && c <= z {
			b[i] = c ^ 0x20
		}
	}
	l.Push(lua.LString(b))
	return 1
}

func stringRep(l *lua.LState) int {
	s, n := text(l, 1), index(l, 2, 0)
	if n <= 0 || s == "" {
		l.Push(lua.LString(""))
		return 1
	}
	if n > pattern.MaxString {
		n = pattern.MaxString + 1
	}
	of(l).fits(l, len(s)*n, "string.rep")
	l.Push(lua.LString(strings.Repeat(s, n)))
	return 1
}

func stringReverse(l *lua.LState) int {
	s := text(l, 1)
	of(l).chargeBytes(l, len(s))
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	l.Push(lua.LString(b))
	return 1
}

func stringSub(l *lua.LState) int {
	s := text(l, 1)
	from, to := span(len(s), index(l, 2, 1), index(l, 3, -1))
	l.Push(lua.LString(s[from:to]))
	return 1
}

// stringFormat knows the conversions of C that Lua has, but for %p, with widths
// and precisions of at most two digits.
func stringFormat(l *lua.LState) int {
	x, format, arg := of(l), text(l, 1), 1
	var b []byte
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b = append(b, format[i])
			continue
		}
		if i++; i < len(format) && format[i] == '%' {
			b = append(b, '%')
			continue
		}
		var s spec
		i = s.read(format, i)
		if i >= len(format) {
			return x.raisef(l, pattern.FaultLua, "string.format: the format ends inside of a %%")
		}
		if s.width > 99 || s.precision > 99 {
			return x.raisef(l, pattern.FaultTooBig, "string.format: a width or precision of more than 99")
		}
		if arg++; arg > l.GetTop() {
			return x.raisef(l, pattern.FaultLua, "string.format: there is no argument for the %%%c", format[i])
		}
		b = x.convert(l, b, s, format[i], arg)
		if len(b) > pattern.MaxString {
			x.fits(l, len(b), "string.format")
		}
	}
	x.chargeBytes(l, len(b))
	l.Push(lua.LString(b))
	return 1
}

// spec is what stands between % and the letter.
type spec struct {
	left, plus, blank, alternate, zero bool
	width, precision                   int
	exact                              bool // a precision was given
}

func (s *spec) read(format string, i int) int {
flags:
	for ; i < len(format); i++ {
		switch format[i] {
		case '-':
			s.left = true
		case '+':
			s.plus = true
		case ' ':
			s.blank = true
		case '#':
			s.alternate = true
		case '0':
			s.zero = true
		default:
			break flags
		}
	}
	number := func() (n int) {
		for ; i < len(format) && format[i] >= '0' && format[i] <= '9'; i++ {
			n = min(n*10+int(format[i]-'0'), 1000)
		}
		return n
	}
	s.width = number()
	if i < len(format) && format[i] == '.' {
		i++
		s.precision, s.exact = number(), true
	}
	return i
}

func (x *execution) convert(l *lua.LState, b []byte, s spec, letter byte, arg int) []byte {
	switch letter {
	case 'd', 'i', 'u', 'x', 'X', 'o':
		f := float64(l.CheckNumber(arg))
		if f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
			if letter != 'd' && letter != 'i' || math.IsNaN(f) || math.Abs(f) >= 1<<63 {
				x.raisef(l, pattern.FaultLua, "string.format: %%%c takes a whole number, not %s", letter, formatNumber(f))
			}
		}
		n := int64(f)
		base := 10
		switch letter {
		case 'x', 'X':
			base = 16
		case 'o':
			base = 8
		}
		digits := strconv.FormatUint(magnitude(n), base)
		if n < 0 && base != 10 {
			digits = strconv.FormatUint(uint64(n), base)
			n = 0
		}
		if letter == 'X' {
			digits = strings.ToUpper(digits)
		}
		if s.exact {
			s.zero = false
			digits = strings.Repeat("0", max(0, s.precision-len(digits))) + digits
		}
		prefix := ""
		if s.alternate && letter != 'd' && letter != 'i' && letter != 'u' && f != 0 {
			prefix = map[byte]string{'x': "0x", 'X': "0X", 'o': "0"}[letter]
		}
		return s.pad(b, s.sign(n < 0, letter != 'u' && base == 10)+prefix, digits)
	case 'c':
		return s.pad(b, "", string([]byte{byte(index(l, arg, 0))}))
	case 'e', 'E', 'f', 'F', 'g', 'G':
		f := float64(l.CheckNumber(arg))
		if math.IsInf(f, 0) || math.IsNaN(f) {
			s.zero = false
			return s.pad(b, s.sign(math.Signbit(f) && !math.IsNaN(f), true), formatNumber(math.Abs(f)))
		}
		precision := 6
		if s.exact {
			precision = s.precision
		}
		var digits string
		switch letter {
		case 'g', 'G':
			digits = formatG(math.Abs(f), max(1, precision))
		default:
			digits = strconv.FormatFloat(math.Abs(f), letter|0x20, precision, 64)
		}
		if letter < 'a' {
			digits = strings.ToUpper(digits)
		}
		return s.pad(b, s.sign(math.Signbit(f), true), digits)
	case 's':
		s.zero = false
		t := tostring(l, l.Get(arg))
		if s.exact {
			t = t[:min(len(t), s.precision)]
		}
		return s.pad(b, "", t)
	case 'q':
		return quoted(b, text(l, arg))
	}
	x.raisef(l, pattern.FaultLua, "string.format knows no %%%c", letter)
	return b
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

func (s *spec) sign(negative, signed bool) string {
	switch {
	case negative:
		return "-"
	case signed && s.plus:
		return "+"
	case signed && s.blank:
		return " "
	}
	return ""
}

func (s *spec) pad(b []byte, prefix, body string) []byte {
	n := max(0, s.width-len(prefix)-len(body))
	switch {
	case s.left:
		return append(append(append(b, prefix...), body...), strings.Repeat(" ", n)...)
	case s.zero:
		return append(append(append(b, prefix...), strings.Repeat("0", n)...), body...)
	}
	return append(append(append(b, strings.Repeat(" ", n)...), prefix...), body...)
}

// quoted is %q: a text as Lua source.
func quoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\', '\n':
			b = append(b, '\\', c)
		case '\r':
			b = append(b, `\r`...)
		case 0:
			b = append(b, `\000`...)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
