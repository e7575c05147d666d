package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MessageLog is the store's log of messages: append-only segment files beside Badger, for what
// is written once, read in order and dropped when it is old. One goroutine writes what waits with
// one write and one sync. Its methods are safe for concurrent use.
type MessageLog struct {
	db  *DB
	dir string

	mu       sync.Mutex
	waiting  []message
	bytes    int // of waiting
	closed   bool
	pending  pending       // waiting, and what the writer has
	kick     chan struct{} // capacity 1: something waits
	segments []*messageSegment
	last     uint64 // newest durable position
	lastTime int64  // its time, Unix ns
	watch    chan struct{}
	syncs    uint64 // groups that were stored
	roll     bool   // the writer is to begin a segment, so that the newest can be trimmed

	active file  // of the newest segment; the writer's, and close's after it
	zeroed int64 // up to where the newest segment is filled with zeros; the writer's
}

// message waits for the writer.
type message struct {
	data []byte
	done func(uint64, error)
}

// messageSegment is one file. The fields but first are guarded by the log's mu.
type messageSegment struct {
	first  uint64 // position of its first record
	size   int64  // durable bytes, header included
	begun  int64  // time of its first record, Unix ns
	latest int64  // time of its newest record
	marks  []messageMark
}

// messageMark says where a record begins, so that a reader need not begin at the front.
type messageMark struct {
	position uint64
	offset   int64
}

const (
	messageQueue      = 16 << 10  // messages that may wait
	messageQueueBytes = 32 << 20  // bytes that may wait
	messageMarkEvery  = 256 << 10 // bytes between two marks
	messageAhead      = 4 << 20   // bytes that are filled with zeros at a time
	messageSegmentAge = time.Hour // after which a segment is not continued, so that it can be dropped
)

// Messages returns the store's message log.
func (db *DB) Messages() *MessageLog { return db.messages }

// Append queues a message of at most 1 MiB; data must not change afterwards. done, when not nil,
// runs in the writer's goroutine, in the order of the positions, once the message is durable or
// its write failed (ErrUncertain); it must not block. When Append returns nil, done runs for
// certain. Errors: ErrBusy (the bounded queue is full), ErrTooLarge, ErrReserve, ErrReadOnly,
// ErrClock, ErrClosed.
func (l *MessageLog) Append(data []byte, done func(position uint64, err error)) error {
	if len(data) > maxValue {
		return fmt.Errorf("%w: a message has %d bytes, at most %d are allowed", ErrTooLarge, len(data), maxValue)
	}
	now := time.Now()
	if err := l.db.writable(now); err != nil {
		return err
	}
	if err := l.db.space.check(now, false); err != nil {
		return err
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	if len(l.waiting) >= messageQueue || l.bytes+len(data) > messageQueueBytes {
		n := len(l.waiting)
		l.mu.Unlock()
		return fmt.Errorf("%w: %d messages wait already", ErrBusy, n)
	}
	l.pending.take()
	l.waiting = append(l.waiting, message{data, done})
	l.bytes += len(data)
	l.mu.Unlock()
	select {
	case l.kick <- struct{}{}:
	default:
	}
	return nil
}

// First returns the oldest position that is kept; one above Last when there is none.
func (l *MessageLog) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) == 0 {
		return l.last + 1
	}
	return l.segments[0].first
}

// Last returns the newest durable position, 0 before the first message.
func (l *MessageLog) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Wait blocks until Last is above after, the context ends (its error) or the store closes.
func (l *MessageLog) Wait(ctx context.Context, after uint64) error {
	for {
		l.mu.Lock()
		last := l.last
		if l.watch == nil {
			l.watch = make(chan struct{})
		}
		changed := l.watch
		l.mu.Unlock()
		if last > after {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.db.closing:
			return ErrClosed
		}
	}
}

// run is the writer's goroutine.
func (l *MessageLog) run() {
	var spare []message
	var buf []byte
	for {
		closing := false
		select {
		case <-l.kick:
		case <-l.db.closing:
			closing = true
		}
		l.mu.Lock()
		group := l.waiting
		l.waiting, l.bytes = spare[:0], 0
		roll := l.roll && len(group) == 0
		l.roll = false
		if closing {
			l.closed = true
		}
		l.mu.Unlock()
		if len(group) > 0 {
			buf = l.write(group, buf[:0])
			if cap(buf) > 4<<20 {
				buf = nil
			}
			clear(group)
		}
		if closing {
			return
		}
		if roll {
			l.rollOver()
		}
		spare = group
	}
}

// write stores a group and answers it.
func (l *MessageLog) write(group []message, buf []byte) []byte {
	l.mu.Lock()
	last, at := l.last, max(l.lastTime, time.Now().UnixNano())
	l.mu.Unlock()
	err := l.db.failure()
	if err == nil {
		if buf, err = l.store(group, buf, last, at); err != nil {
			// As in the journal, a failed sync is never tried again.
			l.db.fail(fmt.Errorf("writing the message log: %w", err))
			err = fmt.Errorf("%w: writing the message log failed (%w); the store takes no more writes: look at the disk, then restart", ErrUncertain, err)
		}
	}
	for i, m := range group {
		if m.done == nil {
			continue
		}
		if err != nil {
			m.done(0, err)
		} else {
			m.done(last+uint64(i)+1, nil)
		}
	}
	l.pending.answer(len(group))
	return buf
}

func (l *MessageLog) store(group []message, buf []byte, last uint64, at int64) ([]byte, error) {
	s, err := l.writeTo(last+1, at)
	if err != nil {
		return buf, err
	}
	var marks []messageMark
	mark := s.size
	if n := len(s.marks); n > 0 {
		mark = s.marks[n-1].offset + messageMarkEvery
	}
	for i, m := range group {
		position := last + uint64(i) + 1
		if offset := s.size + int64(len(buf)); offset >= mark {
			marks = append(marks, messageMark{position, offset})
			mark = offset + messageMarkEvery
		}
		buf = appendMessage(buf, position, at, last, m.data)
	}
	if _, err := l.active.WriteAt(buf, s.size); err != nil {
		return buf, err
	}
	// A sync within a file's length costs one write of the disk; one that makes it longer also
	// waits for the file system's own journal.
	if end := s.size + int64(len(buf)); end > l.zeroed {
		ahead := min(messageAhead, max(0, l.db.tune.messageSegment-end))
		if _, err := l.active.WriteAt(make([]byte, ahead), end); err != nil {
			return buf, err
		}
		l.zeroed = end + ahead
	}
	if err := l.active.Datasync(); err != nil {
		return buf, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.begun == 0 {
		s.begun = at
	}
	s.size += int64(len(buf))
	l.syncs++
	s.latest, l.lastTime, l.last = at, at, last+uint64(len(group))
	s.marks = append(s.marks, marks...)
	if l.watch != nil {
		close(l.watch)
		l.watch = nil
	}
	return buf, nil
}

// writeTo returns the segment for the next record, a new one when the newest is full or old. Only
// the writer calls it, and only the writer changes the newest segment.
func (l *MessageLog) writeTo(first uint64, at int64) (*messageSegment, error) {
	l.mu.Lock()
	var s *messageSegment
	if n := len(l.segments); n > 0 {
		s = l.segments[n-1]
	}
	l.mu.Unlock()
	if s != nil && (s.first == first || s.size < l.db.tune.messageSegment && at-s.begun < int64(messageSegmentAge)) {
		return s, nil
	}
	if s != nil {
		if err := l.end(s); err != nil {
			return nil, err
		}
	}
	s, err := l.begin(first)
	if err == nil && s.first > 1 {
		l.keepSize()
	}
	return s, err
}

// keepSize removes the oldest segments above the bound on size. The writer does it with each new
// segment: whoever trims by age comes by too rarely to stand between one device that floods and a
// full disk. What can't be removed is tried again with the next segment.
func (l *MessageLog) keepSize() {
	if _, err := l.Trim(time.Time{}, 0); err != nil {
		l.db.opt.Logger.Warn("the message log could not be kept within its size", "error", err)
	}
}

// end gives the newest segment the length of its records, as every other has it.
func (l *MessageLog) end(s *messageSegment) error {
	l.zeroed = 0
	return errors.Join(l.active.Truncate(s.size), l.active.Datasync())
}

// rollOver begins an empty segment, whose name keeps the next position when
// all before it are trimmed. A failure changes nothing that is stored: the
// segment goes on, and the next Trim asks again.
func (l *MessageLog) rollOver() {
	l.mu.Lock()
	s, first := l.segments[len(l.segments)-1], l.last+1
	l.mu.Unlock()
	if s.first == first || l.db.failure() != nil {
		return
	}
	err := l.end(s)
	if err == nil {
		_, err = l.begin(first)
	}
	if err != nil {
		l.db.opt.Logger.Warn("the message log could not begin a segment; old messages stay until it can", "error", err)
	}
}

// begin makes a segment and makes it the newest.
func (l *MessageLog) begin(first uint64) (*messageSegment, error) {
	name := l.path(first)
	if err := writeDurably(l.db.fs, name, messageHeader(first), 0o600); err != nil {
		return nil, err
	}
	f, err := l.db.fs.OpenFile(name, unix.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if l.active != nil {
		err = l.active.Close() // all of it is synced
	}
	l.active, l.zeroed = f, 0
	if err != nil {
		return nil, err
	}
	s := &messageSegment{first: first, size: messageFileHeader}
	l.mu.Lock()
	l.segments = append(l.segments, s)
	l.mu.Unlock()
	return s, nil
}

func (l *MessageLog) path(first uint64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%020d.log", first))
}

// Trim removes the oldest segments: those whose newest message is older than before, and those by
// which the log is larger than maxBytes (0: a tenth of the file system, at most 2 GiB, which every new
// segment looks after, too). The newest segment always stays, since its name carries the position on; when it is older than before, an
// empty one is begun behind it, and a later call removes it. It returns how many it removed.
func (l *MessageLog) Trim(before time.Time, maxBytes int64) (n int, err error) {
	if maxBytes <= 0 {
		if maxBytes, err = l.defaultBytes(); err != nil {
			return 0, err
		}
	}
	l.mu.Lock()
	var sum int64
	for _, s := range l.segments {
		sum += s.size
	}
	for n < len(l.segments)-1 && (sum > maxBytes || l.segments[n].latest < before.UnixNano()) {
		sum -= l.segments[n].size
		n++
	}
	if left := len(l.segments) - n; left == 1 && l.segments[n].size > messageFileHeader && l.segments[n].latest < before.UnixNano() {
		l.roll = true
	}
	roll := l.roll
	gone := slices.Clone(l.segments[:n])
	l.segments = slices.Delete(l.segments, 0, n) // readers of the file go on until they close it
	l.mu.Unlock()
	if roll {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
	var errs []error
	for _, s := range gone {
		errs = append(errs, l.db.fs.Remove(l.path(s.first)))
	}
	return n, errors.Join(errs...)
}

func (l *MessageLog) defaultBytes() (int64, error) {
	if n := l.db.tune.messageBytes; n > 0 {
		return n, nil
	}
	return l.db.Share(2 << 30)
}

// Share is what one kind of data may take at most: so many bytes, or a tenth of the file system
// where that is less. It errs when the file system can't be asked.
func (db *DB) Share(most int64) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(db.opt.Dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", db.opt.Dir, err)
	}
	return min(most, int64(st.Blocks)*int64(st.Bsize)/10), nil
}

// stats fills in the log's figures.
func (l *MessageLog) stats(to *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to.MessageQueue, to.MessageSyncs = len(l.waiting), l.syncs
	for _, s := range l.segments {
		to.MessageBytes += s.size
	}
}

func (l *MessageLog) close() error {
	if l == nil || l.active == nil {
		return nil
	}
	return l.active.Close()
}
