package query

import (
	"math"
	"strings"
)

// truth is the value of a condition in three-valued logic; the zero truth is
// truthUnknown, as undefined is.
type truth uint8

const (
	truthUnknown truth = iota
	truthNo
	truthYes
)

func truthOf(b bool) truth {
	if b {
		return truthYes
	}
	return truthNo
}

func (t truth) not() truth {
	switch t {
	case truthYes:
		return truthNo
	case truthNo:
		return truthYes
	}
	return truthUnknown
}

func (t truth) value() Value {
	switch t {
	case truthYes:
		return BoolValue(true)
	case truthNo:
		return BoolValue(false)
	}
	return Value{}
}

// truth returns what a value is as a condition.
func (v Value) truth() truth {
	if v.kind != Bool {
		return truthUnknown
	}
	return truthOf(v.number == 1)
}

// primitive reports whether a value can be compared.
func (v Value) primitive() bool { return v.kind >= Null && v.kind <= String }

// equal is the operator =.
func equals(a, b Value) truth {
	if !a.primitive() || !b.primitive() {
		return truthUnknown
	}
	if a.kind != b.kind {
		return truthNo
	}
	switch a.kind {
	case Bool, Number:
		return truthOf(a.number == b.number)
	case String:
		return truthOf(a.text == b.text)
	}
	return truthYes
}

// ordered is one of the operators < <= > >=.
func ordered(op operator, a, b Value) truth {
	if a.kind != b.kind {
		return truthUnknown
	}
	var c int
	switch a.kind {
	case Number:
		switch {
		case a.number < b.number:
			c = -1
		case a.number > b.number:
			c = 1
		}
	case String:
		c = strings.Compare(a.text, b.text)
	default:
		return truthUnknown
	}
	return truthOf(holds(op, c))
}

// holds reports whether an order of c, as from a Compare, is what op asks for.
func holds(op operator, c int) bool {
	switch op {
	case opLess:
		return c < 0
	case opLessEqual:
		return c <= 0
	case opGreater:
		return c > 0
	default:
		return c >= 0
	}
}

// compare is one of the six comparison operators.
func compare(op operator, a, b Value) truth {
	switch op {
	case opEqual:
		return equals(a, b)
	case opNotEqual:
		return equals(a, b).not()
	}
	return ordered(op, a, b)
}

// mirrored returns the operator that means the same with its sides exchanged.
func mirrored(op operator) operator {
	switch op {
	case opLess:
		return opGreater
	case opLessEqual:
		return opGreaterEqual
	case opGreater:
		return opLess
	case opGreaterEqual:
		return opLessEqual
	}
	return op
}

// arithmetic is one of the operators + - * / %.
func calculate(op operator, a, b Value) Value {
	if a.kind != Number || b.kind != Number {
		return Value{}
	}
	x, y := a.number, b.number
	switch op {
	case opAdd:
		return finite(x + y)
	case opSubtract:
		return finite(x - y)
	case opMultiply:
		return finite(x * y)
	case opDivide:
		return finite(x / y)
	default:
		return finite(math.Mod(x, y))
	}
}
