package service

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// streamKind is a form in which a client reads a stream.
type streamKind uint8

const (
	sourcePlain streamKind = iota // server-sent events
	sourceGzip
	socketPlain // pages on a WebSocket
	socketDeflate
)

// streamPage is a page of events as it goes on the wire. Streams of one kind,
// schema and filter share it, so that a thousand of them cost one encoding and
// one compression, and what a client is slow to take is held once.
type streamPage struct {
	wire  []byte
	shown int // events
	sum   gzipSum
}

// smallPage is not worth a compressor.
const smallPage = 512

// newStreamPage makes the page of a list of events. text is room for it; the page
// may lie there.
func newStreamPage(kind streamKind, list tellable, cursor string, text []byte, c *compressors) (p *streamPage, b []byte) {
	p, b = &streamPage{}, text[:0]
	if kind == socketPlain || kind == socketDeflate {
		if b, p.shown = appendPage(b, list, cursor); p.shown == 0 {
			return p, b
		}
		if kind == socketDeflate && len(b) > smallPage {
			p.wire = wire.TextFrame(c.deflate(b), true)
		} else {
			p.wire = wire.TextFrame(b, false)
		}
		return p, b
	}
	for i := range list.count() {
		before := len(b)
		if b = list.appendText(b, i); len(b) > before {
			p.shown++
		}
	}
	if p.wire = b; kind == sourceGzip && p.shown > 0 {
		p.sum = sumOf(b)
		if len(b) > smallPage {
			p.wire = c.deflate(b)
		} else {
			p.wire = storedBlock(b)
		}
	}
	return p, b
}

// Bounds of what streamPages keeps: pages that streams share are asked for
// within a moment.
const (
	pagesMost      = 1024
	pagesBytesMost = 16 << 20
)

// streamPages finds the pages that streams share.
type streamPages struct {
	compressors compressors
	gatherings  wire.Gatherings
	texts       sync.Pool // *[]byte, in which pages are made

	mu    sync.Mutex
	pages map[pageKey]*sharedPage
	order []pageKey // oldest first
	bytes int
}

type pageKey struct {
	kind  streamKind
	form  int // of the follower
	batch engine.BatchID
}

type sharedPage struct {
	once sync.Once
	page *streamPage
}

func newStreamPages() *streamPages { return &streamPages{pages: map[pageKey]*sharedPage{}} }

// send has a sink send the page of a list that a subscription gave out, and
// returns how many events are on it.
func (s *streamPages) send(to sink, sub follower, list tellable) (shown int, err error) {
	var page *streamPage
	id, shared := sub.Batch()
	if shared {
		page = s.shared(pageKey{to.kind(), sub.schema(), id}, sub, list)
	} else {
		text := s.text()
		defer s.giveBack(text)
		page, *text = newStreamPage(to.kind(), list, sub.Cursor(), *text, &s.compressors)
	}
	sub.Release()
	if page.shown == 0 {
		return 0, nil
	}
	return page.shown, to.send(page)
}

// pageTextMost is the largest text of a page that is kept for the next one.
const pageTextMost = 256 << 10

// text lends room for the text of a page.
func (s *streamPages) text() *[]byte {
	if text, ok := s.texts.Get().(*[]byte); ok {
		return text
	}
	return new([]byte)
}

// giveBack ends that.
func (s *streamPages) giveBack(text *[]byte) {
	if cap(*text) <= pageTextMost {
		s.texts.Put(text)
	}
}

// shared returns a page that other streams have, too.
func (s *streamPages) shared(key pageKey, sub follower, list tellable) *streamPage {
	s.mu.Lock()
	p := s.pages[key]
	if p == nil {
		p = &sharedPage{}
		s.pages[key] = p
		s.order = append(s.order, key)
		s.drop()
	}
	s.mu.Unlock()
	p.once.Do(func() {
		text := s.text()
		var page *streamPage
		page, *text = newStreamPage(key.kind, list, sub.Cursor(), *text, &s.compressors)
		if key.kind == sourcePlain {
			page.wire = bytes.Clone(page.wire) // it lay there
		}
		s.giveBack(text)
		s.mu.Lock()
		defer s.mu.Unlock()
		p.page = page
		if s.pages[key] == p {
			s.bytes += len(page.wire)
			s.drop()
		}
	})
	return p.page
}

// drop forgets the oldest pages above the bounds; mu is held.
func (s *streamPages) drop() {
	for len(s.order) > 1 && (len(s.order) > pagesMost || s.bytes > pagesBytesMost) {
		old := s.pages[s.order[0]]
		if old.page != nil {
			s.bytes -= len(old.page.wire)
		}
		delete(s.pages, s.order[0])
		s.order = s.order[1:]
	}
}

// forget lets go of all pages: nobody reads any more.
func (s *streamPages) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.pages)
	s.order, s.bytes = nil, 0
}

// compressors are idle compressors, each of some hundred KB.
type compressors struct{ idle sync.Pool }

// deflate compresses b by itself; the result ends with a sync flush, so that
// any other such may follow it in one stream.
func (c *compressors) deflate(b []byte) []byte {
	var out bytes.Buffer
	w, ok := c.idle.Get().(*flate.Writer)
	if !ok {
		w, _ = flate.NewWriter(nil, flate.BestSpeed) // the level is one that exists
	}
	w.Reset(&out)
	_, _ = w.Write(b) // a Buffer takes everything
	_ = w.Flush()
	c.idle.Put(w)
	return out.Bytes()
}

// storedBlock is up to 64 KiB as DEFLATE that is not compressed. The empty
// block behind it makes readers give out what they have.
func storedBlock(b []byte) []byte {
	n := uint16(len(b))
	out := append(make([]byte, 0, len(b)+10), 0)
	out = binary.LittleEndian.AppendUint16(out, n)
	out = binary.LittleEndian.AppendUint16(out, ^n)
	out = append(out, b...)
	return append(out, 0, 0, 0, 0xff, 0xff)
}

// gzipHeader begins a gzip stream; see RFC 1952.
const gzipHeader = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// gzipSum is the checksum of a text in a gzip stream. Sums of texts are added,
// so that a thousand streams need not each look at all that they send.
type gzipSum struct {
	crc   uint32
	size  uint32
	shift uint32 // what moves a checksum past the text
}

func sumOf(b []byte) gzipSum {
	// x to the power of 8 len(b), modulo the CRC's polynomial.
	shift, square := uint32(1)<<31, uint32(1)<<30
	for n := uint64(len(b)) << 3; n > 0; n >>= 1 {
		if n&1 != 0 {
			shift = multiply(square, shift)
		}
		square = multiply(square, square)
	}
	return gzipSum{crc32.ChecksumIEEE(b), uint32(len(b)), shift}
}

// add is the sum of two texts, one after the other; the shift is unused.
func (a gzipSum) add(b gzipSum) gzipSum {
	return gzipSum{crc: multiply(b.shift, a.crc) ^ b.crc, size: a.size + b.size}
}

// multiply is a product of polynomials modulo the CRC's, bits reflected.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.IEEE
		} else {
			b >>= 1
		}
	}
	return product
}

// trailer ends a gzip stream.
func (a gzipSum) trailer() []byte {
	b := []byte{3, 0} // an empty last block
	b = binary.LittleEndian.AppendUint32(b, a.crc)
	return binary.LittleEndian.AppendUint32(b, a.size)
}
