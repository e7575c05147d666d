package engine

import (
	"strconv"

	"github.com/muster-hub/muster/storage"
)

// The codecs of what each connecting device reads and writes: the JSON of
// encoding/json without its reflection, as identityCodec has it. What is not as
// they write it is left to encoding/json.

// credentialCodec reads identity records as credentials. It does not write.
type credentialCodec struct {
	storage.Codec[credentialRecord]
}

// Decode implements storage.Codec.
func (c credentialCodec) Decode(b []byte) (credentialRecord, error) {
	var r credentialRecord
	if s := (recordScanner{b: b}); s.credentials(&r) {
		return r, nil
	}
	return c.Codec.Decode(b)
}

func (s *recordScanner) credentials(r *credentialRecord) bool {
	return s.members(func(key string) (ok bool) {
		switch key {
		case "g":
			ok = s.into(&r.GenerationID)
		case "n":
			r.Revision, ok = s.number()
		case "x":
			r.Disabled, ok = true, s.word("true")
		case "at":
			ok = s.into((*string)(&r.Type))
		case "k":
			ok = s.bytes(&r.SealedKeys)
		case "c", "u", "su", "sr", "ds", "mb":
			_, ok = s.text()
		case "h":
			_, ok = s.number()
		case "e":
			ok = s.word("true")
		}
		return ok // not "ps" and "th", and what a later version adds
	})
}

// members walks the members of the object that the record is. Each must be read
// by member, once.
func (s *recordScanner) members(member func(key string) bool) bool {
	if !s.skip('{') {
		return false
	}
	for {
		key, ok := s.text()
		if !ok || !s.skip(':') || !member(string(key)) {
			return false
		}
		switch {
		case s.skip('}'):
			return len(s.b) == 0
		case !s.skip(','):
			return false
		}
	}
}

// presenceCodec reads and writes presence.
type presenceCodec struct{ storage.Codec[presenceRecord] }

// Append implements storage.Codec.
func (presenceCodec) Append(dst []byte, r presenceRecord) ([]byte, error) {
	m := beginMembers(dst)
	if !r.Updated.IsZero() {
		m.time("u", r.Updated)
	}
	if !r.Activity.IsZero() {
		m.time("a", r.Activity)
	}
	m.textUnlessEmpty("r", r.Run)
	return m.end(), nil
}

// Decode implements storage.Codec.
func (c presenceCodec) Decode(b []byte) (presenceRecord, error) {
	var r presenceRecord
	s := recordScanner{b: b}
	if s.members(func(key string) bool {
		switch key {
		case "u":
			return s.time(&r.Updated)
		case "a":
			return s.time(&r.Activity)
		case "r":
			return s.into(&r.Run)
		}
		return false
	}) {
		return r, nil
	}
	return c.Codec.Decode(b)
}

// subscriptionCodec reads and writes subscriptions.
type subscriptionCodec struct{ storage.Codec[Subscriptions] }

// Append implements storage.Codec.
func (subscriptionCodec) Append(dst []byte, r Subscriptions) ([]byte, error) {
	for i, qos := range r {
		c := byte(',')
		if i == 0 {
			c = '['
		}
		dst = strconv.AppendInt(append(dst, c), int64(qos), 10)
	}
	return append(dst, ']'), nil
}

// Decode implements storage.Codec.
func (c subscriptionCodec) Decode(b []byte) (Subscriptions, error) {
	var r Subscriptions
	s := recordScanner{b: b}
	for i := range r {
		if i == 0 && !s.skip('[') || i > 0 && !s.skip(',') {
			return c.Codec.Decode(b)
		}
		switch {
		case s.skip('0'):
		case s.skip('1'):
			r[i] = 1
		case s.word("-1"):
			r[i] = NotSubscribed
		default:
			return c.Codec.Decode(b)
		}
	}
	if string(s.b) != "]" {
		return c.Codec.Decode(b)
	}
	return r, nil
}
