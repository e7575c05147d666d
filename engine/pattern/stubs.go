package pattern

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// Stubs returns the file muster.d.lua, with which an editor that runs
// lua-language-server completes and checks programs. More are objects that only
// some programs have, such as those of tests. Lua's own functions are left to the
// editor.
func Stubs(more ...Object) []byte {
	s := &stubs{known: map[string]bool{}}
	s.line("---@meta muster")
	s.line("")
	s.line("-- What patterns of Muster see, for editors that run lua-language-server.")
	s.line("-- `muster pattern stubs` writes it; it is never run.")
	for _, a := range []struct{ name, text string }{
		{typeDuration, "Such as `90s`, `5m`, `6h` or `2d`."},
		{typeTime, "Such as `2026-01-31T22:00:00Z`."},
		{typePath, "Such as `reported.firmware.version`, `desired.mode`, `tags.site`, `connected` or `deviceId`."},
		{typePredicate, "Such as `tags.site == 'A' and reported.battery < 20`."},
	} {
		s.line("")
		s.doc(a.text)
		s.line("---@alias " + a.name + " string")
	}
	s.line("")
	s.doc("A secret, or a key: the program never sees its value.")
	s.line("---@class " + typeSecret)
	s.class("muster.Fault", "An error as pcall gives it, and as `error` takes it.", []Field{
		{Name: "code", Type: "string", Text: "One of docs/reference/lua.md, or one of your own."},
		{Name: "message", Type: "string", Optional: true},
		{Name: "status", Type: "integer", Optional: true, Text: "Of the device's or a server's answer."},
		{Name: "cause", Type: "any", Optional: true, Text: "Whatever you give."},
		{Name: "payload", Type: "any", Optional: true, Text: "Of the device's answer."},
	})
	s.class("muster.Wave", "What a gate is told.", waveFields())
	s.class("muster.Pattern", "What `pattern` gives.", nil)
	s.class("muster.Manifest", "What a pattern declares.", ManifestFields())
	for _, o := range append(Host(), more...) {
		s.object(o)
	}
	return s.out.Bytes()
}

// links are those of the page, which lead nowhere from an editor.
var links = regexp.MustCompile(`\[([^\]]+)\]\([^)]+\)`)

// stubs is the file as it is written.
type stubs struct {
	out   bytes.Buffer
	known map[string]bool // classes
}

func (s *stubs) line(text string) { s.out.WriteString(text + "\n") }

func (s *stubs) doc(text string) {
	if text == "" {
		return
	}
	text = links.ReplaceAllString(text, "$1")
	for line := range strings.SplitSeq(text, "\n") {
		s.line("--- " + line)
	}
}

// class writes a class with its fields, behind those of the tables in it.
func (s *stubs) class(name, text string, fields []Field) {
	if s.known[name] {
		return
	}
	s.known[name] = true
	types := make([]string, len(fields))
	for i, f := range fields {
		types[i] = s.typeOf(name, f)
	}
	s.line("")
	s.doc(text)
	s.line("---@class " + name)
	for i, f := range fields {
		s.line("---@field " + fieldName(f) + " " + types[i] + about(f.Text))
	}
}

func fieldName(f Field) string {
	if f.Optional && f.Name[0] != '[' {
		return f.Name + "?"
	}
	return f.Name
}

// typeOf is the type of a field; a table with members gets a class named after
// where it stands.
func (s *stubs) typeOf(within string, f Field) string {
	if f.Members == nil {
		return f.Type
	}
	name := within + "." + f.Name
	s.class(name, f.Text, f.Members)
	if f.List {
		name += "[]"
	}
	return name
}

func about(text string) string {
	if text == "" {
		return ""
	}
	return " " + links.ReplaceAllString(strings.ReplaceAll(text, "\n", " "), "$1")
}

// object writes a class of an object, or a global table, with its functions.
func (s *stubs) object(o Object) {
	name, class := o.Name, o.Class
	var functions []Function
	for _, f := range o.Functions {
		if !f.Standard {
			functions = append(functions, f)
		}
	}
	switch {
	case len(functions) == 0:
		return
	case class == "":
		class = "muster.library." + orGlobal(name)
	}
	if name != "" {
		s.class(class, o.Text, o.Fields)
		if o.Method {
			s.line("local " + name + " = {}")
		} else {
			s.line(name + " = {}")
		}
	}
	for _, f := range functions {
		s.function(name, class, o.Method, f)
	}
}

func orGlobal(name string) string {
	if name == "" {
		return "globals"
	}
	return name
}

func (s *stubs) function(object, class string, method bool, f Function) {
	within := class + "." + f.Name
	params, returns := make([]string, len(f.Params)), make([]string, len(f.Returns))
	for i, p := range f.Params {
		params[i] = s.typeOf(within, p)
	}
	for i, r := range f.Returns {
		returns[i] = s.typeOf(within, r)
	}
	s.line("")
	s.doc(f.Text)
	if len(f.Needs) > 0 {
		s.doc("")
		s.line("---")
		s.doc("Needs `" + strings.Join(f.Needs, "`, `") + "`.")
	}
	if f.Example != "" {
		s.line("---")
		s.doc("```lua\n" + f.Example + "\n```")
	}
	var names []string
	for i, p := range f.Params {
		s.line("---@param " + fieldName(p) + " " + params[i] + about(p.Text))
		names = append(names, p.Name)
	}
	for i, r := range f.Returns {
		kind := returns[i]
		if r.Optional {
			kind += "?"
		}
		s.line("---@return " + kind + " " + r.Name + about(r.Text))
	}
	sep := "."
	if method {
		sep = ":"
	}
	full := object + sep + f.Name
	if object == "" {
		full = f.Name
	}
	s.line(fmt.Sprintf("function %s(%s) end", full, strings.Join(names, ", ")))
}
