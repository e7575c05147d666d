package engine

import (
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// members builds a flat JSON object. Every change of a twin writes two of them,
// its history and its entry in the change log, and encoding/json would take
// longer for them than the merge takes. Names are plain; raw values are JSON
// already; texts are valid UTF-8.
type members struct {
	b     []byte
	first int // where the first member begins
}

// beginMembers begins an object behind dst.
func beginMembers(dst []byte) members {
	dst = append(dst, '{')
	return members{b: dst, first: len(dst)}
}

func (m *members) name(name string) {
	if len(m.b) > m.first {
		m.b = append(m.b, ',')
	}
	m.b = append(m.b, '"')
	m.b = append(m.b, name...)
	m.b = append(m.b, '"', ':')
}

func (m *members) text(name, v string) {
	m.name(name)
	m.b = twin.AppendString(m.b, v)
}

func (m *members) textUnlessEmpty(name, v string) {
	if v != "" {
		m.text(name, v)
	}
}

func (m *members) number(name string, v int64) {
	m.name(name)
	m.b = strconv.AppendInt(m.b, v, 10)
}

func (m *members) numberUnlessZero(name string, v int64) {
	if v != 0 {
		m.number(name, v)
	}
}

// time adds a time as encoding/json writes it.
func (m *members) time(name string, t time.Time) {
	m.name(name)
	m.b = append(t.AppendFormat(append(m.b, '"'), time.RFC3339Nano), '"')
}

// raw adds a value that is JSON; none is null.
func (m *members) raw(name string, v []byte) {
	m.name(name)
	if len(v) == 0 {
		v = []byte("null")
	}
	m.b = append(m.b, v...)
}

func (m *members) rawUnlessEmpty(name string, v []byte) {
	if len(v) > 0 {
		m.raw(name, v)
	}
}

// end returns the whole.
func (m *members) end() []byte { return append(m.b, '}') }
