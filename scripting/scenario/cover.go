package scenario

import (
	"maps"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
)

// cover says which lines of a bundle's programs ran.
func cover(b *pattern.Bundle, ran map[string]map[int]bool) []FileCover {
	var list []FileCover
	for _, file := range slices.Sorted(maps.Keys(b.Files)) {
		if file != pattern.MainFile && !strings.HasPrefix(file, "lib/") || !strings.HasSuffix(file, ".lua") {
			continue
		}
		can := runnable(file, b.Files[file])
		c := FileCover{File: file, Lines: len(can)}
		for _, line := range can {
			if ran[file][line] {
				c.Ran++
			} else {
				c.Missed = append(c.Missed, line)
			}
		}
		list = append(list, c)
	}
	return list
}

// runnable lists the lines of functions on which something is done, in order. A
// chunk's own lines run whenever the pattern is loaded, and are not counted.
func runnable(file string, source []byte) []int {
	chunk, err := scripting.Parse(file, source)
	if err != nil {
		return nil
	}
	proto, err := lua.Compile(chunk, file)
	if err != nil {
		return nil
	}
	lines := map[int]bool{}
	var walk func(p *lua.FunctionProto, inside bool)
	walk = func(p *lua.FunctionProto, inside bool) {
		if inside {
			for n, line := range p.DbgSourcePositions {
				// The last instruction returns at the function's end, where nothing is to be read.
				if n == len(p.DbgSourcePositions)-1 && line == p.LastLineDefined && p.LastLineDefined != p.LineDefined {
					continue
				}
				if line > 0 && hasWork(source, line) {
					lines[line] = true
				}
			}
		}
		for _, inner := range p.FunctionPrototypes {
			walk(inner, true)
		}
	}
	walk(proto, false)
	return slices.Sorted(maps.Keys(lines))
}

// hasWork reports whether a line has more on it than the end of a block.
func hasWork(source []byte, line int) bool {
	text := strings.Split(string(source), "\n")
	if line > len(text) {
		return false
	}
	switch strings.Trim(text[line-1], " \t\r,;)}") {
	case "", "end", "else", "do", "then":
		return false
	}
	return true
}
