package scripting

import (
	"math"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
)

// mathFunctions is Lua's math without random numbers, which are steps here.
func mathFunctions() map[string]lua.LGFunction {
	set := map[string]lua.LGFunction{
		"max": extreme(math.Max), "min": extreme(math.Min),
		"frexp": mathFrexp, "modf": mathModf, "log": mathLog,
		"ldexp": func(l *lua.LState) int {
			l.Push(lua.LNumber(math.Ldexp(float64(l.CheckNumber(1)), index(l, 2, 0))))
			return 1
		},
	}
	for name, f := range map[string]func(float64) float64{
		"abs": math.Abs, "acos": math.Acos, "asin": math.Asin, "atan": math.Atan, "ceil": math.Ceil, "cos": math.Cos, "cosh": math.Cosh,
		"exp": math.Exp, "floor": math.Floor, "log10": math.Log10, "sin": math.Sin, "sinh": math.Sinh, "sqrt": math.Sqrt, "tan": math.Tan, "tanh": math.Tanh,
		"deg": func(x float64) float64 { return x * (180 / math.Pi) }, "rad": func(x float64) float64 { return x * (math.Pi / 180) },
	} {
		set[name] = func(l *lua.LState) int {
			l.Push(lua.LNumber(f(float64(l.CheckNumber(1)))))
			return 1
		}
	}
	for name, f := range map[string]func(a, b float64) float64{"atan2": math.Atan2, "fmod": math.Mod, "pow": math.Pow} {
		set[name] = func(l *lua.LState) int {
			l.Push(lua.LNumber(f(float64(l.CheckNumber(1)), float64(l.CheckNumber(2)))))
			return 1
		}
	}
	return set
}

func extreme(f func(a, b float64) float64) lua.LGFunction {
	return func(l *lua.LState) int {
		most := float64(l.CheckNumber(1))
		for i := 2; i <= l.GetTop(); i++ {
			most = f(most, float64(l.CheckNumber(i)))
		}
		l.Push(lua.LNumber(most))
		return 1
	}
}

func mathFrexp(l *lua.LState) int {
	fraction, exponent := math.Frexp(float64(l.CheckNumber(1)))
	l.Push(lua.LNumber(fraction))
	l.Push(lua.LNumber(exponent))
	return 2
}

func mathModf(l *lua.LState) int {
	whole, fraction := math.Modf(float64(l.CheckNumber(1)))
	if math.IsInf(whole, 0) {
		fraction = 0
	}
	l.Push(lua.LNumber(whole))
	l.Push(lua.LNumber(fraction))
	return 2
}

func mathLog(l *lua.LState) int {
	v := math.Log(float64(l.CheckNumber(1)))
	if l.GetTop() > 1 {
		base := float64(l.CheckNumber(2))
		if base <= 0 {
			return of(l).raisef(l, pattern.FaultLua, "math.log: the base is %s", formatNumber(base))
		}
		v /= math.Log(base)
	}
	l.Push(lua.LNumber(v))
	return 1
}
