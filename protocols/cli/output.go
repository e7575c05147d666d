package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/muster-hub/muster/protocols/client"
)

// OutputFlags choose the form of a command's result.
type OutputFlags struct {
	Output string `short:"o" help:"Form of the result: table, json, jsonl or csv." enum:"table,json,jsonl,csv" default:"table" placeholder:"FORM"`
}

// sheet is a list result: one row a record for tables and csv, one item a
// record for JSON.
type sheet struct {
	columns []string // "DEVICE", "LAST ACTIVITY"
	rows    [][]any  // string, number, bool, time.Time, client.Time, json.RawMessage
	items   []any    // as many as rows
	empty   string   // what a table says instead of nothing, on standard error
}

func (s *sheet) add(item any, cells ...any) {
	s.rows = append(s.rows, cells)
	s.items = append(s.items, item)
}

// field is a line of a single record.
type field struct {
	name  string
	value any
}

// print writes a list in the form that was asked for.
func (a *app) print(o OutputFlags, s *sheet) error {
	switch o.Output {
	case "json":
		if s.items == nil {
			s.items = []any{}
		}
		return writeJSON(a.io.Out, s.items)
	case "jsonl":
		for _, item := range s.items {
			if err := writeJSONLine(a.io.Out, item); err != nil {
				return err
			}
		}
		return nil
	case "csv":
		return writeCSV(a.io.Out, s.columns, s.rows)
	}
	if len(s.rows) == 0 && s.empty != "" {
		a.note("%s", s.empty)
		return nil
	}
	return a.writeTable(s)
}

// printRecord writes one record; item is what JSON forms show.
func (a *app) printRecord(o OutputFlags, item any, fields []field) error {
	switch o.Output {
	case "json":
		return writeJSON(a.io.Out, item)
	case "jsonl":
		return writeJSONLine(a.io.Out, item)
	case "csv":
		names, cells := make([]string, len(fields)), make([]any, len(fields))
		for i, f := range fields {
			names[i], cells[i] = f.name, f.value
		}
		return writeCSV(a.io.Out, names, [][]any{cells})
	}
	wide := 0
	for _, f := range fields {
		wide = max(wide, displayWidth(f.name))
	}
	var b strings.Builder
	for _, f := range fields {
		text := a.cell(f.value)
		if text == "" {
			text = "-"
		}
		line := f.name + strings.Repeat(" ", wide-displayWidth(f.name)+2) + text
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(a.io.Out, b.String())
	return err
}

func writeJSON(w io.Writer, v any) error {
	raw, err := encodeJSON(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(plainJSON(b.Bytes()))
	return err
}

func writeJSONLine(w io.Writer, v any) error {
	raw, err := encodeJSON(v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(plainJSON(b.Bytes()))
	return err
}

// plainJSON escapes what a text of JSON may have as it is, and what a terminal might
// obey, such as U+009B, which begins a command. Programs read the same.
func plainJSON(text []byte) []byte {
	obeyed := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if utf8.Valid(text) && !bytes.ContainsFunc(text, obeyed) {
		return text
	}
	var b bytes.Buffer
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case !obeyed(r) && !(r == utf8.RuneError && n == 1):
			b.Write(text[:n])
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		text = text[n:]
	}
	return b.Bytes()
}

// stream lets write put out a text that comes in parts, lines of JSON or CSV: for
// programs as it is, on a terminal without anything that could steer it.
func (a *app) stream(write func(w io.Writer) error) error {
	if !isTerminal(a.io.Out) {
		return write(a.io.Out)
	}
	p := plainLines{w: a.io.Out}
	return errors.Join(write(&p), p.end())
}

// content is stream for what is in a file, which may be anything: on a terminal it
// is refused unless it begins as text does.
func (a *app) content(write func(w io.Writer) error) error {
	if a.width == 0 {
		return write(a.io.Out)
	}
	p := plainLines{w: a.io.Out, file: true}
	err := write(&p)
	if errors.Is(err, errNotText) {
		return usage("the content does not look like text, and standard output is a terminal", "Write it to a file with --to FILE, or send it to a program: `muster ... | PROGRAM`.")
	}
	return errors.Join(err, p.end())
}

var errNotText = errors.New("the content does not look like text")

// looksBinary judges a file by its beginning. A character may be cut at its end.
func looksBinary(beginning []byte) bool {
	for utf8.FullRune(beginning) {
		r, n := utf8.DecodeRune(beginning)
		if r == 0 || r == utf8.RuneError && n == 1 {
			return true
		}
		beginning = beginning[n:]
	}
	return false
}

// plainLines passes lines on as printable shows them.
type plainLines struct {
	w     io.Writer
	file  bool   // a file's content: it must look like text, and tabs stay
	begun bool   // something has come
	rest  []byte // of a line that is not whole
}

const plainLine = 1 << 20 // bytes of a line that are kept until it is whole

func (p *plainLines) Write(b []byte) (int, error) {
	if p.file && !p.begun && looksBinary(b) {
		return 0, errNotText
	}
	p.begun = p.begun || len(b) > 0
	text := append(p.rest, b...)
	whole := bytes.LastIndexByte(text, '\n') + 1
	if len(text)-whole > plainLine {
		whole = len(text)
	}
	p.rest = bytes.Clone(text[whole:])
	if _, err := io.WriteString(p.w, p.show(text[:whole])); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *plainLines) end() error {
	_, err := io.WriteString(p.w, p.show(p.rest))
	return err
}

func (p *plainLines) show(text []byte) string {
	if !p.file {
		return printableLines(string(text))
	}
	parts := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\t")
	for i := range parts {
		parts[i] = printableLines(parts[i])
	}
	return strings.Join(parts, "\t")
}

// encodeJSON keeps <, > and & as they are: the result is for shells, not HTML.
func encodeJSON(v any) ([]byte, error) {
	if raw, ok := v.(json.RawMessage); ok {
		return raw, nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

func writeCSV(w io.Writer, columns []string, rows [][]any) error {
	c := csvTo(w)
	head := make([]string, len(columns))
	for i, name := range columns {
		head[i] = strings.ReplaceAll(strings.ToLower(name), " ", "_")
	}
	if err := c.write(head); err != nil {
		return err
	}
	for _, row := range rows {
		line := make([]string, len(row))
		for i, v := range row {
			line[i] = plainCell(v)
		}
		if err := c.write(line); err != nil {
			return err
		}
	}
	return c.flush()
}

// csvWriter writes CSV: for programs as it is, on a terminal with escapes, as a
// table has them.
type csvWriter struct {
	w        *csv.Writer
	terminal bool
}

func csvTo(w io.Writer) *csvWriter { return &csvWriter{csv.NewWriter(w), isTerminal(w)} }

func (c *csvWriter) write(line []string) error {
	if c.terminal {
		line = slices.Clone(line)
		for i := range line {
			line[i] = printable(line[i])
		}
	}
	return c.w.Write(line)
}

func (c *csvWriter) flush() error {
	c.w.Flush()
	return c.w.Error()
}

// plainCell is a value for machines.
func plainCell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.UTC().Format(time.RFC3339Nano)
	case client.Time:
		return plainCell(v.Time)
	case json.RawMessage:
		return string(v)
	}
	return fmt.Sprint(v)
}

// cell is a value for people, without anything that could steer a terminal.
func (a *app) cell(v any) string {
	switch v := v.(type) {
	case time.Time:
		if v.IsZero() {
			return "never"
		}
		return v.In(a.zone).Format("2006-01-02 15:04:05")
	case client.Time:
		return a.cell(v.Time)
	case bool:
		if v {
			return "yes"
		}
		return "no"
	}
	return printable(plainCell(v))
}

// printable shows control characters as escapes: ids, reasons and payloads
// come from devices and must not reach the terminal as commands.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case !unicode.IsPrint(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// displayWidth counts terminal columns: wide characters take two, combining
// marks none.
func displayWidth(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60,
		r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// cut shortens a text to a width, with an ellipsis for what is missing.
func cut(s string, width int) string {
	if displayWidth(s) <= width {
		return s
	}
	n := 0
	for i, r := range s {
		if n+runeWidth(r) > width-1 {
			return s[:i] + "…"
		}
		n += runeWidth(r)
	}
	return s
}
