package engine

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/storage"
)

// configuredRecord is what a twin has of configurations.
type configuredRecord struct {
	Has   []configuredBy    // by id
	Of    []configuredOwner // of Owned
	Owned []configuredPath  // by path
}

// configuredBy is a configuration that selects the twin.
type configuredBy struct {
	ID      string
	Created int64  // of the configuration, Unix ns
	Effect  uint64 // the revision that the twin has
	Applied bool
	Fault   string // why the twin does not take it; empty: it does
}

type configuredOwner struct {
	ID      string
	Created int64
}

// configuredPath is a path that a configuration has set.
type configuredPath struct {
	Path string
	By   int // in Of
	Mark uint64
}

var configuredTable = storage.NewTable[configuredRecord]("configured", 1, configuredCodec{})

func getConfigured(r storage.Reader, id TwinID) (configuredRecord, error) {
	record, err := configuredTable.Get(r, id.key())
	if errors.Is(err, storage.ErrNotFound) {
		return configuredRecord{}, nil
	}
	return record, err
}

func (r *configuredRecord) empty() bool { return len(r.Has) == 0 && len(r.Owned) == 0 }

func (r *configuredRecord) equal(o *configuredRecord) bool {
	return slices.Equal(r.Has, o.Has) && slices.Equal(r.Of, o.Of) && slices.Equal(r.Owned, o.Owned)
}

func (r *configuredRecord) find(id string) *configuredBy {
	i, ok := slices.BinarySearchFunc(r.Has, id, func(b configuredBy, id string) int { return strings.Compare(b.ID, id) })
	if !ok {
		return nil
	}
	return &r.Has[i]
}

func (b *configuredBy) status() ConfigurationStatus {
	if b.Applied {
		return ConfigurationApplied
	}
	return ConfigurationTargeted
}

// owners are the record's paths as package configuration takes them.
func (r *configuredRecord) owners() []configuration.Owner {
	list := make([]configuration.Owner, len(r.Owned))
	for i, p := range r.Owned {
		by := r.Of[p.By]
		list[i] = configuration.Owner{Path: p.Path, Configuration: by.ID, Created: time.Unix(0, by.Created), Mark: p.Mark}
	}
	return list
}

func (r *configuredRecord) own(list []configuration.Owner) {
	r.Of, r.Owned = nil, nil
	if len(list) > 0 {
		r.Owned = make([]configuredPath, len(list))
	}
	known := map[configuredOwner]int{}
	for i, o := range list {
		by := configuredOwner{o.Configuration, o.Created.UnixNano()}
		at, ok := known[by]
		if !ok {
			at = len(r.Of)
			known[by] = at
			r.Of = append(r.Of, by)
		}
		r.Owned[i] = configuredPath{o.Path, at, o.Mark}
	}
}

// configuredCodec stores a record as varints and texts with their lengths: it is
// read whenever a twin changes that a configuration selects, and JSON would cost
// more than all else.
type configuredCodec struct{}

var errConfiguredRecord = errors.New("record of a twin's configurations is cut short")

func (configuredCodec) Append(dst []byte, r configuredRecord) ([]byte, error) {
	text := func(s string) {
		dst = append(binary.AppendUvarint(dst, uint64(len(s))), s...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Has)))
	for i := range r.Has {
		b := &r.Has[i]
		text(b.ID)
		dst = binary.AppendVarint(dst, b.Created)
		dst = binary.AppendUvarint(dst, b.Effect)
		applied := byte(0)
		if b.Applied {
			applied = 1
		}
		dst = append(dst, applied)
		text(b.Fault)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Of)))
	for _, o := range r.Of {
		text(o.ID)
		dst = binary.AppendVarint(dst, o.Created)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Owned)))
	for _, p := range r.Owned {
		text(p.Path)
		dst = binary.AppendUvarint(dst, uint64(p.By))
		dst = binary.LittleEndian.AppendUint64(dst, p.Mark)
	}
	return dst, nil
}

func (configuredCodec) Decode(b []byte) (configuredRecord, error) {
	d := configuredDecoder{b: b, text: string(b)}
	var r configuredRecord
	if n := d.count(5); n > 0 { // what one takes at least
		r.Has = make([]configuredBy, n)
	}
	for i := range r.Has {
		r.Has[i] = configuredBy{ID: d.string(), Created: d.varint(), Effect: d.uvarint(), Applied: d.byte() == 1, Fault: d.string()}
	}
	if n := d.count(2); n > 0 {
		r.Of = make([]configuredOwner, n)
	}
	for i := range r.Of {
		r.Of[i] = configuredOwner{d.string(), d.varint()}
	}
	if n := d.count(10); n > 0 {
		r.Owned = make([]configuredPath, n)
	}
	for i := range r.Owned {
		p := configuredPath{Path: d.string()}
		by := d.uvarint()
		if by >= uint64(len(r.Of)) {
			d.bad = true
			break
		}
		p.By, p.Mark = int(by), d.mark()
		r.Owned[i] = p
	}
	if d.bad || d.at != len(b) {
		return configuredRecord{}, errConfiguredRecord
	}
	return r, nil
}

// configuredDecoder reads what configuredCodec wrote; bad says that something else
// was there.
type configuredDecoder struct {
	b    []byte
	text string // the same
	at   int
	bad  bool
}

func (d *configuredDecoder) take(n int) int {
	if d.bad || n < 0 || n > len(d.b)-d.at {
		d.bad = true
		return -1
	}
	d.at += n
	return d.at - n
}

func (d *configuredDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b[d.at:])
	if n <= 0 || d.take(n) < 0 {
		d.bad = true
		return 0
	}
	return v
}

func (d *configuredDecoder) varint() int64 {
	v, n := binary.Varint(d.b[d.at:])
	if n <= 0 || d.take(n) < 0 {
		d.bad = true
		return 0
	}
	return v
}

func (d *configuredDecoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return ""
	}
	from := d.take(int(n))
	if from < 0 {
		return ""
	}
	return d.text[from:d.at]
}

func (d *configuredDecoder) byte() byte {
	from := d.take(1)
	if from < 0 {
		return 0
	}
	return d.b[from]
}

func (d *configuredDecoder) mark() uint64 {
	from := d.take(8)
	if from < 0 {
		return 0
	}
	return binary.LittleEndian.Uint64(d.b[from:])
}

// count reads how many follow, each of size bytes at least.
func (d *configuredDecoder) count(size int) int {
	n := d.uvarint()
	if n > uint64((len(d.b)-d.at)/size) {
		d.bad = true
		return 0
	}
	return int(n)
}
