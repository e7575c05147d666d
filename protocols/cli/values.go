package cli

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// valueMappers read numbers and spans of time: kong's own say which bits a
// number has, and take no days, which spans of jobs and the hub's texts have.
func valueMappers() []kong.Option {
	number := func(text string, target reflect.Value) error {
		n, err := strconv.ParseInt(text, 0, target.Type().Bits())
		switch {
		case errors.Is(err, strconv.ErrRange):
			return fmt.Errorf("%q is too large", text)
		case err != nil:
			return fmt.Errorf("%q is not a whole number", text)
		}
		target.SetInt(n)
		return nil
	}
	options := []kong.Option{kong.TypeMapper(reflect.TypeFor[time.Duration](), textMapper(func(text string, target reflect.Value) error {
		d, err := readSpan(text)
		if err == nil {
			target.SetInt(int64(d))
		}
		return err
	}))}
	for _, kind := range []reflect.Kind{reflect.Int, reflect.Int64} {
		options = append(options, kong.KindMapper(kind, textMapper(number)))
	}
	return append(options, kong.KindMapper(reflect.Float64, textMapper(func(text string, target reflect.Value) error {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		target.SetFloat(n)
		return nil
	})))
}

func textMapper(read func(text string, target reflect.Value) error) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		token, err := ctx.Scan.PopValue(ctx.Value.Name)
		if err != nil {
			return err
		}
		return read(fmt.Sprint(token.Value), target)
	}
}

// readSpan is spanOf with an error for people.
func readSpan(text string) (time.Duration, error) {
	d, err := spanOf(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a span of time, expected such as 90s, 1h30m or 2d", text)
	}
	return d, nil
}

// plainParse says in words what kong says in its own: that a value or an
// argument is missing, or that a value looks like a flag. next is what to do
// about it, when that is more than to read the usage.
func plainParse(text string) (what, next string) {
	// The flag may stand before the error, and its name in it, too.
	if flag, rest, ok := strings.Cut(text, ": expected "); ok {
		_, rest, ok = strings.Cut(rest, ` value but got "`)
		if end := strings.LastIndex(rest, `" (`); ok && end >= 0 {
			if strings.HasPrefix(rest[end:], `" (<EOL>)`) {
				return flag + " needs a value", ""
			}
			word := rest[:end]
			return fmt.Sprintf("%s needs a value, and %q begins with -, as flags do", flag, word),
				"If it is the value, write " + flag + "=" + shellWord(word) + "."
		}
	}
	list, ok := strings.CutPrefix(text, "expected ")
	switch {
	case ok && strings.HasPrefix(list, "one of "):
		return "a command is missing; expected " + list, ""
	case ok && strings.HasPrefix(list, `"<`):
		words, err := strconv.Unquote(list)
		if err != nil {
			return text, ""
		}
		if strings.Count(words, "<") > 1 {
			return "the arguments " + words + " are missing", ""
		}
		return "the argument " + words + " is missing", ""
	}
	if words, ok := strings.CutPrefix(text, "missing positional arguments "); ok {
		return "the argument " + words + " is missing", ""
	}
	return chosen(text), ""
}
