package author

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting/scenario"
)

// Text writes findings for people, each with the lines of source around it. dir is
// the pattern's folder, or its one file.
func Text(out io.Writer, dir string, b *pattern.Bundle, list []Finding) error {
	var text strings.Builder
	errs, warnings := 0, 0
	for _, f := range list {
		if f.Level == LevelError {
			errs++
		} else {
			warnings++
		}
		place := dir
		if f.File != "" && !strings.HasSuffix(dir, ".lua") { // else dir is the file
			place = filepath.Join(dir, f.File)
		}
		if f.Line > 0 {
			place += fmt.Sprintf(":%d", f.Line)
		}
		fmt.Fprintf(&text, "%s: %s: %s (%s)\n", place, f.Level, f.Message, f.Rule)
		if f.Next != "" {
			fmt.Fprintf(&text, "      %s\n", f.Next)
		}
		for _, line := range scenario.Excerpt(b, f.File, f.Line) {
			fmt.Fprintf(&text, "      %s\n", strings.TrimRight(line, " "))
		}
	}
	switch {
	case errs+warnings == 0:
		fmt.Fprintf(&text, "%s: nothing to complain about\n", dir)
	default:
		fmt.Fprintf(&text, "%s: %s, %s\n", dir, counted(errs, "error"), counted(warnings, "warning"))
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Placed adds to an error of Lua where it is, with the lines around it.
func Placed(b *pattern.Bundle, err error) error {
	f, ok := errors.AsType[*pattern.Fault](err)
	if !ok || f.Line == "" {
		return err
	}
	file, line := splitLine(f.Line)
	text := f.Line + ": " + f.Message
	if lines := scenario.Excerpt(b, file, line); len(lines) > 0 {
		text += "\n" + strings.Join(lines, "\n")
	}
	return errors.New(text)
}
