package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// csvReader reads records of CSV (RFC 4180) with bounded memory, whatever is in
// the file: a quote that is never closed must not swallow the rest of it.
// encoding/csv keeps a field of any length.
type csvReader struct {
	from  *bufio.Reader
	comma byte
	line  int // of the next byte, from 1

	fields []string
	field  []byte
	size   int // bytes of the record so far
}

// Bounds of a record.
const (
	csvRecordBytes = 1 << 20
	csvColumns     = 1000
)

// csvFault is what is wrong in a record, and where.
type csvFault struct {
	line, column int // in the file; column in characters, from 1
	text         string
}

func (f *csvFault) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", f.line, f.column, f.text)
}

// newCSVReader skips a byte order mark, and finds out what separates fields when
// comma is 0: what the first line has most of, outside of quotes.
func newCSVReader(r io.Reader, comma byte) (*csvReader, error) {
	c := &csvReader{from: bufio.NewReaderSize(r, 64<<10), comma: comma, line: 1}
	head, err := c.from.Peek(64 << 10)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("\ufeff")) {
		_, _ = c.from.Discard(3) // was looked at
		head = head[3:]
	}
	if c.comma == 0 {
		c.comma = separatorOf(head)
	}
	return c, nil
}

func separatorOf(head []byte) byte {
	counts := map[byte]int{}
	quoted := false
	for _, b := range head {
		switch {
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '\n':
			quoted = true // the first line is over
		case b == ',' || b == ';' || b == '\t':
			counts[b]++
		}
	}
	best := byte(',')
	for _, b := range []byte{';', '\t'} {
		if counts[b] > counts[best] {
			best = b
		}
	}
	return best
}

// next returns a record and the line on which it begins; the fields are valid
// until the next call. A *csvFault is about this record alone: the next call
// goes on behind it. io.EOF ends the file. Blank lines are passed over.
func (c *csvReader) next() (fields []string, line int, err error) {
	for {
		line = c.line
		c.fields, c.field, c.size = c.fields[:0], c.field[:0], 0
		more, err := c.record(line)
		if err != nil {
			return nil, line, err
		}
		if len(c.fields) == 1 && c.fields[0] == "" && more {
			continue
		}
		if len(c.fields) == 1 && c.fields[0] == "" {
			return nil, line, io.EOF
		}
		return c.fields, line, nil
	}
}

// record reads up to the record's end; more is false at the end of the file.
func (c *csvReader) record(line int) (more bool, err error) {
	const (
		start  = iota // of a field
		plain         // within a field without quotes
		quoted        // within quotes
		closed        // behind a closing quote
	)
	state, column := start, 0
	var fault *csvFault
	opened := csvFault{line: line}
	fail := func(format string, args ...any) {
		if fault == nil {
			fault = &csvFault{c.line, column, fmt.Sprintf(format, args...)}
		}
	}
	end := func() {
		if fault == nil && !utf8.Valid(c.field) {
			fail("the field is not UTF-8; save the file as UTF-8")
		}
		if len(c.fields) == csvColumns {
			fail("the record has more than %d fields", csvColumns)
		} else if fault == nil {
			c.fields = append(c.fields, string(c.field))
		}
		c.field, state = c.field[:0], start
	}
	for {
		b, err := c.from.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			if state == quoted {
				fault = &csvFault{opened.line, opened.column, "the quote is not closed"}
			}
			end()
			if fault != nil {
				return false, fault
			}
			return false, nil
		case err != nil:
			return false, err
		}
		if b < 0x80 || b >= 0xc0 { // the first byte of a character
			column++
		}
		if c.size++; c.size > csvRecordBytes {
			if c.size == csvRecordBytes+1 {
				text := fmt.Sprintf("the record has more than %d bytes", csvRecordBytes)
				if state == quoted {
					fault = &csvFault{opened.line, opened.column, text + "; perhaps this quote is not closed"}
				}
				fail("%s", text)
				c.field = c.field[:0]
			}
			if state == quoted { // the rest of the line is given up, not of the file
				state = plain
			}
		}
		switch {
		case b == '\n' && state != quoted:
			if n := len(c.field); n > 0 && c.field[n-1] == '\r' && state == plain {
				c.field = c.field[:n-1]
			}
			end()
			c.line++
			if fault != nil {
				return true, fault
			}
			return true, nil
		case b == c.comma && state != quoted:
			end()
			continue
		case state == start && b == '"':
			state, opened = quoted, csvFault{line: c.line, column: column}
			continue
		case state == quoted && b == '"':
			state = closed
			continue
		case state == closed && b == '"':
			state = quoted // two quotes are one
		case state == closed && b == '\r':
			continue
		case state == closed:
			fail("%q stands behind a closing quote; quotes within a quoted field are doubled", rune(b))
			state = plain
		case state == start:
			state = plain
		}
		if state == plain && b == '"' {
			fail("a quote stands within a field that does not begin with one; put the field in quotes, and double those within")
		}
		if b == '\n' {
			c.line++
			column = 0
		}
		if fault == nil {
			c.field = append(c.field, b)
		}
	}
}
