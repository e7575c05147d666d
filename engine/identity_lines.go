package engine

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// lineReader hands out the lines of a file with bounded memory. A line above
// the bound is passed over, and told.
type lineReader struct {
	from   *bufio.Reader
	most   int
	number int64 // of the line that was read last, from 1
	offset int64 // behind it, in bytes
	buffer []byte
}

const lineBuffer = 64 << 10

// newLineReader reads on behind the line that has the number, at the offset
// where from stands.
func newLineReader(from io.Reader, most int, number, offset int64) *lineReader {
	return &lineReader{from: bufio.NewReaderSize(from, lineBuffer), most: most, number: number, offset: offset}
}

// next returns a line without its end; it is valid until the next call. long
// says that it was above the bound and is not returned. io.EOF ends the file;
// a last line needs no end.
func (r *lineReader) next() (line []byte, long bool, err error) {
	r.buffer = r.buffer[:0]
	size := int64(0)
	for {
		part, err := r.from.ReadSlice('\n')
		size += int64(len(part))
		switch {
		case err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF):
			return nil, false, err
		case errors.Is(err, io.EOF) && size == 0:
			return nil, false, io.EOF
		}
		// The bound does not count the line's end, of which there may be two bytes.
		if long = long || len(r.buffer)+len(part) > r.most+2; !long {
			r.buffer = append(r.buffer, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		r.number++
		r.offset += size
		line = bytes.TrimSuffix(bytes.TrimSuffix(r.buffer, []byte("\n")), []byte("\r"))
		if long = long || len(line) > r.most; long {
			r.buffer = nil // it has grown as far as it may
			return nil, true, nil
		}
		return line, false, nil
	}
}

// isIdentityLine reports whether a line is to be read at all: an export may
// begin with a sentence for people, and files have blank lines.
func isIdentityLine(line []byte) bool {
	line = bytes.TrimLeft(bytes.TrimPrefix(line, []byte("\ufeff")), " \t")
	return len(line) > 0 && line[0] == '{'
}
