package wire

import (
	"encoding/binary"
	"errors"
	"io"
)

// arrivedLimit bounds the bytes that are taken ahead of the WebSocket library.
const arrivedLimit = 64 << 10

// ReadArrived is Read for what has arrived already: where Read would wait, or
// where the stream can't tell, it returns 0 and no error. Whoever answers many
// packets at once, because one answer costs as much as many, reads with it
// until it returns 0.
func (s *Stream) ReadArrived(p []byte) (int, error) {
	switch {
	case s.link.socket == nil:
		return 0, nil
	case s.ws == nil:
		return s.link.readArrived(p)
	}
	if s.message != nil {
		if !s.whole {
			return 0, nil
		}
		// The end of a message that came in one frame is told without reading on.
		if _, err := s.message.Read(nil); !errors.Is(err, io.EOF) {
			return 0, s.readError(err)
		}
		s.message = nil
	}
	if ok, err := s.frameArrived(); !ok {
		return 0, s.readError(err)
	}
	return s.readMessage(p)
}

// frameArrived reports whether the next frame has arrived to its end and is one
// of a message. The library waits for the rest of a frame that it has begun.
func (s *Stream) frameArrived() (bool, error) {
	for {
		buffered, _ := s.frames.Peek(s.frames.Buffered()) // can't fail
		var head [maxFrameHeader]byte
		n := copy(head[:], buffered)
		n += copy(head[n:], s.link.pre)
		have := len(buffered) + len(s.link.pre)
		if size := frameSize(head[:n]); size > 0 && size <= int64(have) {
			return isMessage(head[0]), nil
		}
		if have > arrivedLimit {
			return false, nil
		}
		if grew, err := s.link.takeAhead(); !grew {
			return false, err
		}
	}
}

// frameSize returns the length of the frame that b begins with, header
// included (RFC 6455, section 5.2); 0 while b does not say.
func frameSize(b []byte) int64 {
	if len(b) < 2 {
		return 0
	}
	header, body := 2, int64(b[1]&0x7f)
	if b[1]&0x80 != 0 {
		header += 4
	}
	switch body {
	case 126:
		if len(b) < 4 {
			return 0
		}
		header, body = header+2, int64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if len(b) < 10 {
			return 0
		}
		header, body = header+8, int64(min(binary.BigEndian.Uint64(b[2:]), 1<<62))
	}
	return int64(header) + body
}

// isMessage reports whether a frame that begins with b is a whole message: it
// is final, and neither a continuation nor a control frame.
func isMessage(b byte) bool { return b&0x80 != 0 && (b&0x0f == 1 || b&0x0f == 2) }

// peekByte returns the next byte of a WebSocket when it has been read, else 0.
func (s *Stream) peekByte() byte {
	if s.frames != nil && s.frames.Buffered() > 0 {
		b, _ := s.frames.Peek(1) // can't fail
		return b[0]
	}
	if len(s.link.pre) > 0 {
		return s.link.pre[0]
	}
	return 0
}

// readArrived is Read without waiting.
func (l *link) readArrived(p []byte) (int, error) {
	if len(l.pre) > 0 {
		return l.Read(p)
	}
	n, err := l.Conn.Read(p)
	if err == errDry { //nolint:errorlint // crypto/tls passes it on as it is
		return n, nil
	}
	if err != nil && l.cut.Load() {
		err = errCut
	}
	return n, err
}

// takeAhead adds to pre what has arrived, and reports whether there was more.
func (l *link) takeAhead() (bool, error) {
	b := l.socket.pool.Get(len(l.pre) + workingBuffer)
	n := copy(b.B[:cap(b.B)], l.pre)
	old := l.early
	pre := l.pre
	l.pre = nil
	more, err := l.readArrived(b.B[n:cap(b.B)])
	if more == 0 {
		l.pre = pre
		l.socket.pool.Put(b)
		return false, err
	}
	l.socket.pool.Put(old)
	l.early, l.pre = b, b.B[:n+more]
	return true, nil // an error comes again
}
