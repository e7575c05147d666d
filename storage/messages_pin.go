package storage

import (
	"errors"
	"iter"
	"os"
)

// pinnedMessages are the messages that were durable at one moment. Retention may remove their files
// meanwhile: they are open, so their content stays until close.
type pinnedMessages struct {
	log      *MessageLog
	last     uint64 // the newest position
	segments []messageSegment
	files    []file
}

// pin opens every segment; there are as many as an hour or a segment's size makes of what is kept.
func (l *MessageLog) pin() (*pinnedMessages, error) {
	for {
		p := &pinnedMessages{log: l}
		l.mu.Lock()
		p.last = l.last
		for _, s := range l.segments {
			p.segments = append(p.segments, *s)
		}
		l.mu.Unlock()
		gone := false
		for i := range p.segments {
			f, err := l.db.fs.OpenFile(l.path(p.segments[i].first), os.O_RDONLY, 0)
			if gone = errors.Is(err, os.ErrNotExist) && l.First() > p.segments[i].first; gone {
				break // retention took it between the list and the opening
			}
			if err != nil {
				p.close()
				return nil, err
			}
			p.files = append(p.files, f)
		}
		if !gone {
			return p, nil
		}
		p.close()
	}
}

// read yields the messages in their order.
func (p *pinnedMessages) read() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i, f := range p.files {
			if !p.log.readFile(f, &p.segments[i], 0, yield) {
				return
			}
		}
	}
}

func (p *pinnedMessages) close() {
	for _, f := range p.files {
		_ = f.Close() // only read
	}
	p.files = nil
}
