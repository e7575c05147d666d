package disk

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// pageSize is what the kernel writes back as a whole, unless power ends
	// in the middle of it.
	pageSize = 4096
	// sectorSize is what a drive writes as a whole.
	sectorSize = 512
)

// content is what a file holds. Pages of zeros are left out. A page is never
// changed once it is in a content, so contents share pages.
type content struct {
	size  int64
	pages map[int64][]byte
}

// readContent reads f, sharing the pages that are as in prev. It sees what
// was written through mappings too, since Linux keeps one page for both.
func readContent(f *os.File, prev content) (content, error) {
	st, err := f.Stat()
	if err != nil {
		return content{}, err
	}
	c := content{size: st.Size(), pages: map[int64][]byte{}}
	fd := int(f.Fd())
	buf := make([]byte, 64*pageSize)
	for off := int64(0); off < c.size; {
		start, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO { //nolint:errorlint // raw errno
			break // only a hole follows
		}
		if err != nil {
			return content{}, fmt.Errorf("seek to data in %s: %w", f.Name(), err)
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return content{}, fmt.Errorf("seek to hole in %s: %w", f.Name(), err)
		}
		start = start / pageSize * pageSize
		end = min(end, c.size)
		for start < end {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), end-start)], start)
			if err != nil && err != io.EOF {
				return content{}, err
			}
			if n == 0 {
				break
			}
			clear(buf[n : (n+pageSize-1)/pageSize*pageSize])
			for p := 0; p < n; p += pageSize {
				c.keep((start+int64(p))/pageSize, buf[p:p+pageSize], prev)
			}
			start += int64(n+pageSize-1) / pageSize * pageSize
		}
		off = max(end, off+1)
	}
	return c, nil
}

// keep stores a copy of page, or the one of prev if it is the same.
func (c *content) keep(i int64, page []byte, prev content) {
	if old, ok := prev.pages[i]; ok && bytes.Equal(old, page) {
		c.pages[i] = old
		return
	}
	if !bytes.Equal(page, zeroPage()) {
		c.pages[i] = bytes.Clone(page)
	}
}

// zeroPage is read only.
func zeroPage() []byte { return zeros[:] }

var zeros [pageSize]byte

// page returns page i, zeros if there is none. It must not be changed.
func (c content) page(i int64) []byte {
	if p, ok := c.pages[i]; ok {
		return p
	}
	return zeroPage()
}

func (c content) clone() content {
	return content{size: c.size, pages: maps.Clone(c.pages)}
}

// resized returns c cut or extended with zeros.
func (c content) resized(size int64) content {
	out := content{size: size, pages: map[int64][]byte{}}
	for i, p := range c.pages {
		switch start := i * pageSize; {
		case start >= size:
		case start+pageSize > size:
			cut := make([]byte, pageSize)
			copy(cut, p[:size-start])
			out.pages[i] = cut
		default:
			out.pages[i] = p
		}
	}
	return out
}

// write makes a file of c at path.
func (c content) write(path string, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	for i, p := range c.pages {
		n := min(c.size-i*pageSize, pageSize)
		if n <= 0 {
			continue
		}
		if _, err = f.WriteAt(p[:n], i*pageSize); err != nil {
			break
		}
	}
	if err == nil {
		err = f.Truncate(c.size)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
