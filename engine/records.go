package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// The hub's tables and logs. Keys are tuples of ids; the storage format
// reference lists them with their owners.
var (
	deviceTable = storage.NewTable[identityRecord]("device", 1, identityCodec{storage.JSON[identityRecord]()},
		storage.Index[identityRecord]{Name: "parent", Keys: func(_ storage.Key, r identityRecord) []storage.Key {
			var keys []storage.Key
			for _, p := range r.ParentScopes {
				keys = append(keys, storage.Tuple(p))
			}
			return keys
		}})
	moduleTable   = storage.NewTable[identityRecord]("module", 1, identityCodec{storage.JSON[identityRecord]()})
	twinTable     = storage.NewTable[twinRecord]("twin", 1, twinCodec{})
	historyTable  = storage.NewTable[historyRecord]("history", 1, historyCodec{storage.JSON[historyRecord]()})
	presenceTable = storage.NewTable[presenceRecord]("presence", 1, presenceCodec{storage.JSON[presenceRecord]()},
		storage.Index[presenceRecord]{Name: "live", Keys: func(_ storage.Key, r presenceRecord) []storage.Key {
			if r.Run == "" {
				return nil
			}
			return []storage.Key{storage.Tuple(r.Run)}
		}})
	subscriptionTable = storage.NewTable[Subscriptions]("subscription", 1, subscriptionCodec{storage.JSON[Subscriptions]()})
	policyTable       = storage.NewTable("policy", 1, storage.JSON[policyRecord]())
	answerTable       = storage.NewTable("answer", 1, storage.JSON[answerRecord](),
		storage.Index[answerRecord]{Name: "kept", Keys: func(_ storage.Key, r answerRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.Kept)}
		}})

	changeLog = storage.NewLog("changes", storage.LogOptions{})
	auditLog  = storage.NewLog("audit", storage.LogOptions{Chained: true})
)

// The commutative counters behind Statistics.
const (
	counterDevices  = "devices"
	counterDisabled = "devices.disabled"
	counterModules  = "modules"
)

func deviceKey(id string) storage.Key { return storage.Tuple(id) }

// key is the key of everything that both devices and modules have.
func (id TwinID) key() storage.Key { return storage.Tuple(id.DeviceID, id.ModuleID) }

func (id TwinID) fromKey(k storage.Key) (TwinID, error) {
	parts, err := k.Parts()
	if err != nil || len(parts) < 2 {
		return TwinID{}, errors.New("key is not that of an identity")
	}
	d, ok1 := parts[0].(string)
	m, ok2 := parts[1].(string)
	if !ok1 || !ok2 {
		return TwinID{}, errors.New("key is not that of an identity")
	}
	return TwinID{d, m}, nil
}

// identityRecord is a stored identity. SAS keys are sealed together under the
// identity's name, so that a record can't be passed off as another's.
type identityRecord struct {
	GenerationID  string             `json:"g"`
	Revision      uint64             `json:"n"` // the ETag's number
	Disabled      bool               `json:"x,omitempty"`
	StatusReason  string             `json:"sr,omitempty"`
	StatusUpdated time.Time          `json:"su,omitzero"`
	Type          AuthenticationType `json:"at"`
	SealedKeys    []byte             `json:"k,omitempty"`
	Thumbprints   [2]string          `json:"th,omitzero"`
	Edge          bool               `json:"e,omitempty"`
	DeviceScope   string             `json:"ds,omitempty"`
	ParentScopes  []string           `json:"ps,omitempty"`
	ManagedBy     string             `json:"mb,omitempty"`
	Created       time.Time          `json:"c"`
	Updated       time.Time          `json:"u"`
	History       uint64             `json:"h,omitempty"` // entries written so far
}

type sealedKeys struct {
	Primary   string `json:"p"`
	Secondary string `json:"s"`
}

func (h *Hub) sealKeys(context string, primary, secondary auth.Secret) ([]byte, error) {
	m := beginMembers(make([]byte, 0, 256)) // of sealedKeys
	m.text("p", primary.Reveal())
	m.text("s", secondary.Reveal())
	return h.db.Seal(m.end(), context)
}

func (h *Hub) unsealKeys(context string, sealed []byte) (primary, secondary auth.Secret, err error) {
	if len(sealed) == 0 {
		return "", "", nil
	}
	b, err := h.db.Unseal(sealed, context)
	if err != nil {
		return "", "", err
	}
	var k sealedKeys
	s := recordScanner{b: b}
	if !s.members(func(key string) bool {
		switch key {
		case "p":
			return s.into(&k.Primary)
		case "s":
			return s.into(&k.Secondary)
		}
		return false
	}) {
		k = sealedKeys{}
		if err := json.Unmarshal(b, &k); err != nil {
			return "", "", err
		}
	}
	return auth.Secret(k.Primary), auth.Secret(k.Secondary), nil
}

// policyRecord is a stored shared access policy.
type policyRecord struct {
	Permissions auth.Permission `json:"r"`
	SealedKeys  []byte          `json:"k"`
	Created     time.Time       `json:"c"`
	Updated     time.Time       `json:"u"`
}

// presenceRecord is what survives a restart of an identity's presence. It is
// written when a session begins or ends, and coarsely in between.
type presenceRecord struct {
	Updated  time.Time `json:"u,omitzero"`
	Activity time.Time `json:"a,omitzero"`
	Run      string    `json:"r,omitempty"` // of the hub, in which the session began; empty: there is none
}

// historyRecord is one stored change.
type historyRecord struct {
	Version   int64           `json:"v"`
	Time      time.Time       `json:"t"`
	Principal string          `json:"p"`
	Cause     string          `json:"c,omitempty"`
	RequestID string          `json:"r,omitempty"`
	Patch     json.RawMessage `json:"f"`
	Undo      json.RawMessage `json:"b"`
}

// plainJSON is JSON that leaves markup as it is: escaped, a document full of it
// would take six times its size and no longer fit.
type plainJSON[T any] struct{ storage.Codec[T] }

func (plainJSON[T]) Append(dst []byte, r T) ([]byte, error) {
	b, err := marshal(r)
	return append(dst, b...), err
}

// historyCodec writes what plainJSON would, without reflection: each change of
// a twin has an entry.
type historyCodec struct{ storage.Codec[historyRecord] }

func (historyCodec) Append(dst []byte, r historyRecord) ([]byte, error) {
	m := beginMembers(dst)
	m.number("v", r.Version)
	m.text("t", r.Time.Format(time.RFC3339Nano))
	m.text("p", r.Principal)
	m.textUnlessEmpty("c", r.Cause)
	m.textUnlessEmpty("r", r.RequestID)
	m.raw("f", r.Patch)
	m.raw("b", r.Undo)
	return m.end(), nil
}

// marshal is json.Marshal without the escapes for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// historyNumber is a place in the history table's keys; the values are stored
// and never change.
type historyNumber uint64

const (
	historyIdentity historyNumber = iota + 1
	historyTags
	historyDesired
	historyReported
)

// historyKey holds the generation, so that an identity that is deleted and
// made again does not inherit the history of the one before it.
func historyKey(id TwinID, generation string, s historyNumber, n uint64) storage.Key {
	return storage.Tuple(id.DeviceID, id.ModuleID, generation, uint64(s), n)
}

// twinRecord is a stored twin. The history counters say how many entries of
// each section were ever written, which makes trimming a point delete.
type twinRecord struct {
	Generation string // of the identity
	Revision   uint64 // the ETag's number
	Version    int64
	ModelID    string
	History    [3]uint64 // tags, desired, reported
	Tags       *twin.Section
	Desired    *twin.Section
	Reported   *twin.Section
	Epoch      uint32 // number of the epoch that wrote it last; 0 is 1
}

func newTwinRecord(generation string) twinRecord {
	return twinRecord{Generation: generation, Revision: 1, Version: 2, Tags: twin.New(twin.Tags), Desired: twin.New(twin.Desired), Reported: twin.New(twin.Reported)}
}

func (r *twinRecord) section(k twin.Kind) **twin.Section {
	switch k {
	case twin.Tags:
		return &r.Tags
	case twin.Desired:
		return &r.Desired
	default:
		return &r.Reported
	}
}

// twinCodec stores a twin as varints and length-prefixed sections: twins are
// the hub's hottest record, and JSON would cost more than the merge.
type twinCodec struct{}

var errTwinRecord = errors.New("twin record is cut short")

func (twinCodec) Append(dst []byte, r twinRecord) ([]byte, error) {
	// Stamps make a section about half as large again as its content. A record
	// that is written again finds room for what it had.
	if size := r.Tags.Bytes() + r.Desired.Bytes() + r.Reported.Bytes(); cap(dst)-len(dst) < size {
		dst = slices.Grow(dst, 256+size*3/2)
	}
	dst = binary.AppendUvarint(dst, r.Revision)
	dst = binary.AppendVarint(dst, r.Version)
	for _, n := range r.History {
		dst = binary.AppendUvarint(dst, n)
	}
	for _, text := range []string{r.Generation, r.ModelID} {
		dst = binary.AppendUvarint(dst, uint64(len(text)))
		dst = append(dst, text...)
	}
	for _, s := range [...]*twin.Section{r.Tags, r.Desired, r.Reported} {
		dst = append(dst, 0, 0, 0, 0)
		start := len(dst)
		dst = twin.Encode(dst, s)
		binary.LittleEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
	}
	if r.Epoch > 1 {
		dst = binary.AppendUvarint(dst, uint64(r.Epoch))
	}
	return dst, nil
}

func (twinCodec) Decode(b []byte) (twinRecord, error) {
	var r twinRecord
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	take := func() ([]byte, error) {
		n := uvarint()
		if n > uint64(len(b)) {
			return nil, errTwinRecord
		}
		v := b[:n]
		b = b[n:]
		return v, nil
	}
	r.Revision = uvarint()
	v, n := binary.Varint(b)
	if n <= 0 {
		return r, errTwinRecord
	}
	r.Version, b = v, b[n:]
	for i := range r.History {
		r.History[i] = uvarint()
	}
	for _, text := range []*string{&r.Generation, &r.ModelID} {
		part, err := take()
		if err != nil {
			return r, err
		}
		*text = string(part)
	}
	for _, s := range [...]**twin.Section{&r.Tags, &r.Desired, &r.Reported} {
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return r, errTwinRecord
		}
		end := 4 + int(binary.LittleEndian.Uint32(b))
		var err error
		if *s, err = twin.Decode(b[4:end]); err != nil {
			return r, err
		}
		b = b[end:]
	}
	if len(b) != 0 { // epochs after the first
		r.Epoch = uint32(min(uvarint(), math.MaxUint32))
		if r.Epoch < 2 {
			return r, errTwinRecord
		}
	}
	if len(b) != 0 {
		return r, errors.New("twin record has bytes after its end")
	}
	return r, nil
}
