package scripting

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

func jsonFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{"encode": jsonEncode, "decode": jsonDecode, "array": jsonArray}
}

func jsonEncode(l *lua.LState) int {
	x := of(l)
	b, err := encode(l.CheckAny(1), pattern.MaxString)
	if err != nil {
		return x.raisef(l, codeOf(err), "json.encode: the value %s", err)
	}
	x.chargeBytes(l, 4*len(b))
	l.Push(lua.LString(b))
	return 1
}

func jsonDecode(l *lua.LState) int {
	x, s := of(l), text(l, 1)
	x.chargeBytes(l, 32*len(s)) // tables take more than their text
	v, err := x.lib.decode(s)
	if err != nil {
		return x.raisef(l, pattern.FaultInvalid, "json.decode: the text %s", err)
	}
	l.Push(v)
	return 1
}

// jsonArray marks a table as a list.
func jsonArray(l *lua.LState) int {
	x, t := of(l), checkTable(l, 1)
	if t.Metatable != lua.LNil && t.Metatable != lua.LValue(x.lib.arrayMeta) {
		return x.raisef(l, pattern.FaultInvalid, "json.array: the table has a metatable already")
	}
	t.Metatable = x.lib.arrayMeta
	l.Push(t)
	return 1
}

// bytesFunction makes a function of a text that gives one, or an error.
func bytesFunction(name string, f func(string) (string, error)) lua.LGFunction {
	return func(l *lua.LState) int {
		x, s := of(l), text(l, 1)
		x.fits(l, 2*len(s), name)
		out, err := f(s)
		if err != nil {
			return x.raisef(l, pattern.FaultInvalid, "%s: %s", name, err)
		}
		l.Push(lua.LString(out))
		return 1
	}
}

func base64Functions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"encode": bytesFunction("base64.encode", func(s string) (string, error) { return base64.StdEncoding.EncodeToString([]byte(s)), nil }),
		"decode": bytesFunction("base64.decode", func(s string) (string, error) {
			b, err := base64.StdEncoding.DecodeString(s)
			return string(b), err
		}),
	}
}

func hexFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"encode": bytesFunction("hex.encode", func(s string) (string, error) { return hex.EncodeToString([]byte(s)), nil }),
		"decode": bytesFunction("hex.decode", func(s string) (string, error) {
			b, err := hex.DecodeString(s)
			return string(b), err
		}),
	}
}

func hashFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{"sha256": func(l *lua.LState) int {
		s := text(l, 1)
		of(l).chargeBytes(l, 4*len(s))
		sum := sha256.Sum256([]byte(s))
		l.Push(lua.LString(hex.EncodeToString(sum[:])))
		return 1
	}}
}

func hmacFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{"sha256": func(l *lua.LState) int {
		key, s := text(l, 1), text(l, 2)
		of(l).chargeBytes(l, 4*(len(key)+len(s)))
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(s))
		l.Push(lua.LString(hex.EncodeToString(h.Sum(nil))))
		return 1
	}}
}

func timeFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"parse": func(l *lua.LState) int {
			l.Push(seconds(timeArg(l, 1)))
			return 1
		},
		"format": func(l *lua.LState) int {
			f := float64(l.CheckNumber(1))
			if math.IsNaN(f) || math.Abs(f) > 1e11 {
				return of(l).raisef(l, pattern.FaultInvalid, "time.format: %s is no time", formatNumber(f))
			}
			return pushTime(l, time.UnixMilli(int64(math.Round(f*1000))))
		},
		"add": func(l *lua.LState) int {
			t, s := timeArg(l, 1), durationText(l, l.Get(2), "add")
			s, negative := strings.CutPrefix(s, "-")
			d, err := rollout.ParseDuration(s)
			if err != nil {
				return of(l).raisef(l, pattern.FaultInvalid, "time.add: %s", err)
			}
			if negative {
				d = -d
			}
			return pushTime(l, t.Add(time.Duration(d)))
		},
		"diff": func(l *lua.LState) int {
			l.Push(lua.LNumber(timeArg(l, 1).Sub(timeArg(l, 2)).Seconds()))
			return 1
		},
		"seconds": func(l *lua.LState) int {
			d, err := rollout.ParseDuration(text(l, 1))
			if err != nil {
				return of(l).raisef(l, pattern.FaultInvalid, "time.seconds: %s", err)
			}
			l.Push(lua.LNumber(time.Duration(d).Seconds()))
			return 1
		},
		"duration": func(l *lua.LState) int {
			f := float64(l.CheckNumber(1))
			if math.IsNaN(f) || f < 0 || f > 1e9 {
				return of(l).raisef(l, pattern.FaultInvalid, "time.duration: %s seconds are no duration", formatNumber(f))
			}
			l.Push(lua.LString(secondsText(f)))
			return 1
		},
	}
}

func seconds(t time.Time) lua.LNumber { return lua.LNumber(float64(t.UnixMilli()) / 1000) }

func timeArg(l *lua.LState, n int) time.Time {
	s := text(l, n)
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		of(l).raisef(l, pattern.FaultInvalid, `%s is no time, expected one such as "2026-11-30T12:00:00Z"`, quote(s))
	}
	return t
}

func pushTime(l *lua.LState, t time.Time) int {
	l.Push(lua.LString(t.UTC().Format(timeLayout)))
	return 1
}

// secondsText writes seconds as a duration.
func secondsText(f float64) string {
	return rollout.Duration(time.Duration(math.Round(f*1000)) * time.Millisecond).String()
}

func versionFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{
		"compare": func(l *lua.LState) int {
			a, b := text(l, 1), text(l, 2)
			for _, v := range []string{a, b} {
				if err := pattern.CheckReported(v); err != nil {
					return of(l).raisef(l, pattern.FaultInvalid, "version.compare: %s", err)
				}
			}
			of(l).charge(l, 20)
			l.Push(lua.LNumber(pattern.CompareVersions(a, b)))
			return 1
		},
		"satisfies": func(l *lua.LState) int {
			of(l).charge(l, 50)
			is, err := pattern.Satisfies(text(l, 1), text(l, 2))
			if err != nil {
				return of(l).raisef(l, pattern.FaultInvalid, "version.satisfies: %s", err)
			}
			l.Push(lua.LBool(is))
			return 1
		},
	}
}

func textFunctions() map[string]lua.LGFunction {
	return map[string]lua.LGFunction{"template": textTemplate}
}

// textTemplate puts members of a table in the place of {name} and {a.b}; {{ is a
// brace.
func textTemplate(l *lua.LState) int {
	x, s, values := of(l), text(l, 1), checkTable(l, 2)
	var b []byte
	for s != "" {
		i := strings.IndexByte(s, '{')
		if i < 0 {
			b = append(b, s...)
			break
		}
		b, s = append(b, s[:i]...), s[i+1:]
		if strings.HasPrefix(s, "{") {
			b, s = append(b, '{'), s[1:]
			continue
		}
		name, rest, ok := strings.Cut(s, "}")
		if !ok {
			return x.raisef(l, pattern.FaultInvalid, "text.template: the text has { without }")
		}
		s = rest
		v := lua.LValue(values)
		for part := range strings.SplitSeq(name, ".") {
			t, ok := v.(*lua.LTable)
			if !ok {
				v = lua.LNil
				break
			}
			if v = t.RawGetString(part); v == lua.LNil {
				if n, err := strconv.Atoi(part); err == nil {
					v = t.RawGetInt(n)
				}
			}
		}
		if v == lua.LNil {
			return x.raisef(l, pattern.FaultInvalid, "text.template: there is no value for {%s}", clip(name, 80))
		}
		b = append(b, tostring(l, v)...)
		if len(b) > pattern.MaxString {
			x.fits(l, len(b), "text.template")
		}
	}
	x.fits(l, len(b), "text.template")
	l.Push(lua.LString(b))
	return 1
}
