package wire

import (
	"errors"
	"io"
	"sync"
)

// Buffers is a pool of buffers in a few sizes, for readers and writers that
// need one only while bytes are pending. It is safe for concurrent use.
type Buffers struct {
	classes [bufferClasses]sync.Pool
}

const (
	bufferClasses   = 5
	smallestBuffer  = 4 << 10 // and four times as much for each class above
	workingBuffer   = 16 << 10
	largestBuffer   = smallestBuffer << (2 * (bufferClasses - 1))
	smallReadBuffer = 16 // a PINGREQ or an acknowledgement needs no more
	enoughRoom      = 512
)

// Buffer is borrowed memory. B may be appended to beyond its capacity.
type Buffer struct{ B []byte }

// NewBuffers returns an empty pool.
func NewBuffers() *Buffers { return &Buffers{} }

// Get returns an empty buffer with a capacity of at least n bytes.
func (p *Buffers) Get(n int) *Buffer {
	size := smallestBuffer
	for i := range p.classes {
		if n <= size {
			if b, ok := p.classes[i].Get().(*Buffer); ok {
				return b
			}
			return &Buffer{B: make([]byte, 0, size)}
		}
		size *= 4
	}
	return &Buffer{B: make([]byte, 0, n)}
}

// Put gives a buffer back; nil is allowed. Nothing may refer to it afterwards.
func (p *Buffers) Put(b *Buffer) {
	if b == nil {
		return
	}
	size := largestBuffer
	for i := bufferClasses - 1; i >= 0; i-- {
		if c := cap(b.B); c >= size {
			if c <= 4*size { // else grown far beyond any class: leave it to the collector
				b.B = b.B[:0]
				p.classes[i].Put(b)
			}
			return
		}
		size /= 4
	}
}

// Reader takes a byte stream apart into packets. While nothing is pending it
// waits with a buffer of a few bytes; a large one is borrowed for the rest.
// It is for one goroutine.
type Reader struct {
	src   io.Reader
	pool  *Buffers
	limit int
	view  []byte  // what has been read and not decoded, in small or in buf
	buf   *Buffer // nil while idle
	err   error
	small [smallReadBuffer]byte
}

// NewReader returns a reader of src whose packets have a remaining length of
// at most limit bytes.
func NewReader(src io.Reader, pool *Buffers, limit int) *Reader {
	return &Reader{src: src, pool: pool, limit: limit}
}

// SetLimit changes the limit from the next packet on.
func (r *Reader) SetLimit(limit int) { r.limit = limit }

// Buffered returns how many bytes have been read and not yet decoded.
func (r *Reader) Buffered() int { return len(r.view) }

// Next decodes the next packet from what Fill has read. It returns false when
// a packet is not complete yet: call Fill. The packet's payload is valid until
// the next Fill or Close. Errors are those of Decode, and final.
func (r *Reader) Next(p *Packet) (bool, error) {
	n, err := Decode(r.view, r.limit, p)
	if err != nil {
		return false, err
	}
	r.view = r.view[n:]
	return n > 0, nil
}

// Fill reads once from the source, waiting until there is something. The
// error is the source's, io.EOF at a clean end and io.ErrUnexpectedEOF
// inside a packet.
func (r *Reader) Fill() error {
	if r.err != nil {
		return r.ended(r.err)
	}
	var n int
	var err error
	if len(r.view) == 0 {
		// Everything was decoded: hand the memory back before waiting.
		r.pool.Put(r.buf)
		r.buf = nil
		n, err = r.src.Read(r.small[:])
		r.view = r.small[:n]
	} else {
		n, err = r.src.Read(r.room())
		r.view = r.view[:len(r.view)+n]
	}
	if n > 0 {
		r.err = err // first comes what was read
		return nil
	}
	return r.ended(err)
}

// FillArrived is Fill where it need not wait, and reports whether it read
// something. It tries only behind more than a few bytes, and only where the
// source can tell, as a Stream can. The source's error is Fill's to return.
func (r *Reader) FillArrived() bool {
	src, ok := r.src.(interface{ ReadArrived(p []byte) (int, error) })
	if !ok || r.buf == nil || r.err != nil {
		return false
	}
	n, err := src.ReadArrived(r.room())
	r.view, r.err = r.view[:len(r.view)+n], err
	return n > 0
}

func (r *Reader) ended(err error) error {
	if errors.Is(err, io.EOF) && len(r.view) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// room returns free space right behind view, moving view to the start of a
// larger buffer when it has to. Growth follows the bytes received, never a
// length that the peer only announced.
func (r *Reader) room() []byte {
	want := len(r.view) + 1
	if r.buf != nil {
		size := cap(r.buf.B)
		start, free := size-cap(r.view), cap(r.view)-len(r.view)
		if free >= enoughRoom || free > 0 && (start == 0 || r.fits(len(r.view)+free)) {
			return r.view[len(r.view):cap(r.view)]
		}
		if start > 0 && size-len(r.view) >= enoughRoom {
			b := r.buf.B[:size]
			r.view = b[:copy(b, r.view)]
			return b[len(r.view):]
		}
		want = size + 1
	}
	if r.limit > MaxConnect {
		want = max(want, workingBuffer)
	}
	next := r.pool.Get(want)
	b := next.B[:cap(next.B)]
	r.view = b[:copy(b, r.view)]
	r.pool.Put(r.buf)
	r.buf = next
	return b[len(r.view):]
}

// fits reports whether n bytes hold the whole packet that view starts with.
func (r *Reader) fits(n int) bool {
	h, err := parseHeader(r.view, r.limit)
	return err == nil && h.size > 0 && h.size+h.body <= n
}

// ReadPacket reads one packet, waiting for it: Next and Fill in one call, for
// clients. The payload is valid until the next call.
func (r *Reader) ReadPacket(p *Packet) error {
	for {
		if ok, err := r.Next(p); ok || err != nil {
			return err
		}
		if err := r.Fill(); err != nil {
			return err
		}
	}
}

// Close gives borrowed memory back. The reader must not be used afterwards.
func (r *Reader) Close() {
	r.pool.Put(r.buf)
	r.buf, r.view, r.err = nil, nil, io.ErrClosedPipe
}
