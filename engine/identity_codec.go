package engine

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// identityCodec reads and writes the JSON of identity records without
// reflection, and leaves what is not as it writes it to encoding/json: each read
// of a twin reads an identity, too, a start reads all of them, and an import
// writes as fast as it can.
type identityCodec struct{ storage.Codec[identityRecord] }

// Append implements storage.Codec. Members and their order are those of the
// record's tags.
func (c identityCodec) Append(dst []byte, r identityRecord) ([]byte, error) {
	m := beginMembers(dst)
	m.text("g", r.GenerationID)
	m.name("n")
	m.b = strconv.AppendUint(m.b, r.Revision, 10)
	if r.Disabled {
		m.raw("x", []byte("true"))
	}
	m.textUnlessEmpty("sr", r.StatusReason)
	if !r.StatusUpdated.IsZero() {
		m.time("su", r.StatusUpdated)
	}
	m.text("at", string(r.Type))
	if len(r.SealedKeys) > 0 {
		m.name("k")
		m.b = append(base64.StdEncoding.AppendEncode(append(m.b, '"'), r.SealedKeys), '"')
	}
	if r.Thumbprints != [2]string{} {
		m.name("th")
		m.b = twin.AppendString(append(m.b, '['), r.Thumbprints[0])
		m.b = append(twin.AppendString(append(m.b, ','), r.Thumbprints[1]), ']')
	}
	if r.Edge {
		m.raw("e", []byte("true"))
	}
	m.textUnlessEmpty("ds", r.DeviceScope)
	for i, p := range r.ParentScopes {
		if i == 0 {
			m.name("ps")
			m.b = append(m.b, '[')
		} else {
			m.b = append(m.b, ',')
		}
		if m.b = twin.AppendString(m.b, p); i == len(r.ParentScopes)-1 {
			m.b = append(m.b, ']')
		}
	}
	m.textUnlessEmpty("mb", r.ManagedBy)
	m.time("c", r.Created)
	m.time("u", r.Updated)
	if r.History > 0 {
		m.name("h")
		m.b = strconv.AppendUint(m.b, r.History, 10)
	}
	return m.end(), nil
}

// Decode implements storage.Codec.
func (c identityCodec) Decode(b []byte) (identityRecord, error) {
	var r identityRecord
	if s := (recordScanner{b: b}); s.identity(&r) {
		return r, nil
	}
	return c.Codec.Decode(b)
}

// recordScanner walks compact JSON whose texts need no escapes. Each method
// reports whether it found what it looks for.
type recordScanner struct{ b []byte }

func (s *recordScanner) identity(r *identityRecord) bool {
	if !s.skip('{') {
		return false
	}
	for {
		key, ok := s.text()
		if !ok || !s.skip(':') {
			return false
		}
		switch string(key) {
		case "g":
			ok = s.into(&r.GenerationID)
		case "n":
			r.Revision, ok = s.number()
		case "h":
			r.History, ok = s.number()
		case "x":
			r.Disabled, ok = true, s.word("true")
		case "e":
			r.Edge, ok = true, s.word("true")
		case "sr":
			ok = s.into(&r.StatusReason)
		case "at":
			ok = s.into((*string)(&r.Type))
		case "ds":
			ok = s.into(&r.DeviceScope)
		case "mb":
			ok = s.into(&r.ManagedBy)
		case "su":
			ok = s.time(&r.StatusUpdated)
		case "c":
			ok = s.time(&r.Created)
		case "u":
			ok = s.time(&r.Updated)
		case "k":
			ok = s.bytes(&r.SealedKeys)
		case "ps":
			ok = s.texts(&r.ParentScopes)
		default: // "th", and what a later version adds
			return false
		}
		switch {
		case !ok:
			return false
		case s.skip('}'):
			return len(s.b) == 0
		case !s.skip(','):
			return false
		}
	}
}

func (s *recordScanner) skip(c byte) bool {
	if len(s.b) == 0 || s.b[0] != c {
		return false
	}
	s.b = s.b[1:]
	return true
}

func (s *recordScanner) word(w string) bool {
	rest, ok := bytes.CutPrefix(s.b, []byte(w))
	s.b = rest
	return ok
}

// text returns a string without escapes, part of the record still. What JSON
// must escape, and what is no ASCII, is not for here.
func (s *recordScanner) text() ([]byte, bool) {
	if !s.skip('"') {
		return nil, false
	}
	for i, c := range s.b {
		switch {
		case c == '"':
			t := s.b[:i]
			s.b = s.b[i+1:]
			return t, true
		case c == '\\', c < ' ', c >= 0x7f:
			return nil, false
		}
	}
	return nil, false
}

func (s *recordScanner) into(to *string) bool {
	t, ok := s.text()
	switch {
	case !ok:
		return false
	case string(t) == string(AuthSAS): // the usual one costs nothing
		*to = string(AuthSAS)
	default:
		*to = string(t)
	}
	return true
}

func (s *recordScanner) texts(to *[]string) bool {
	if !s.skip('[') {
		return false
	}
	for {
		var t string
		if !s.into(&t) {
			return false
		}
		*to = append(*to, t)
		switch {
		case s.skip(']'):
			return true
		case !s.skip(','):
			return false
		}
	}
}

func (s *recordScanner) number() (uint64, bool) {
	n := 0
	for n < len(s.b) && '0' <= s.b[n] && s.b[n] <= '9' {
		n++
	}
	if n == 0 || n > 1 && s.b[0] == '0' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s.b[:n]), 10, 64)
	s.b = s.b[n:]
	return v, err == nil
}

func (s *recordScanner) time(to *time.Time) bool {
	t, ok := s.text()
	return ok && to.UnmarshalText(t) == nil
}

func (s *recordScanner) bytes(to *[]byte) bool {
	t, ok := s.text()
	if !ok {
		return false
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(t)))
	n, err := base64.StdEncoding.Strict().Decode(b, t)
	*to = b[:n]
	return err == nil
}
