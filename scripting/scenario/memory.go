package scenario

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/twin"
)

// memory is what a test's hub does not lose when it crashes. A crash writes it
// as JSON and reads that again, so that nothing else gets across.
type memory struct {
	Twins    map[string]*identity       `json:"twins"`
	Runs     []*run                     `json:"runs"`
	Calls    []*call                    `json:"calls,omitempty"`    // that have not ended
	Requests []*request                 `json:"requests,omitempty"` // that have not ended
	Values   map[string]json.RawMessage `json:"values,omitempty"`   // of key-value stores, by scope and key
	Events   []sent                     `json:"events,omitempty"`
	Serial   int                        `json:"serial"` // of what was named last
}

// run is a run of a pattern, as a hub keeps it.
type run struct {
	ID       string          `json:"id"`
	Pattern  string          `json:"pattern"`
	Device   string          `json:"device,omitempty"`
	Params   json.RawMessage `json:"params,omitempty"`
	Grants   pattern.Needs   `json:"grants"`
	Started  time.Time       `json:"started"`
	Deadline time.Time       `json:"deadline,omitzero"` // of the manifest's timeout
	Late     bool            `json:"late,omitempty"`    // that has passed
	Ended    time.Time       `json:"ended,omitzero"`
	Parent   string          `json:"parent,omitempty"` // the run that waits for it
	Ref      string          `json:"ref,omitempty"`    // of the step in which it does
	Job      string          `json:"job,omitempty"`    // of fleet:run
	Phases   []string        `json:"phases,omitempty"` // all that it had, in order
	State    pattern.Run     `json:"state"`
}

// sent is something that a program gave to the world outside, for its test to
// look at.
type sent struct {
	Device string          `json:"device,omitempty"`
	Type   string          `json:"type"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// identity is a device's identity and twin.
type identity struct {
	ID        string
	Status    string // "enabled" or "disabled"
	Reason    string
	Connected bool
	Messages  []json.RawMessage // that dev:send left for it
	Keys      int               // how often it got new ones
	sections  [3]*twin.Section  // tags, desired, reported
}

// Where the sections lie.
const (
	tags = iota
	desired
	reported
)

func newIdentity(id string) *identity {
	return &identity{ID: id, Status: "enabled", sections: [3]*twin.Section{twin.New(twin.Tags), twin.New(twin.Desired), twin.New(twin.Reported)}}
}

// identityJSON is an identity as it crosses a crash.
type identityJSON struct {
	ID, Status, Reason string
	Connected          bool
	Messages           []json.RawMessage
	Keys               int
	Sections           [3][]byte
}

// MarshalJSON implements json.Marshaler.
func (i *identity) MarshalJSON() ([]byte, error) {
	out := identityJSON{ID: i.ID, Status: i.Status, Reason: i.Reason, Connected: i.Connected, Messages: i.Messages, Keys: i.Keys}
	for n, s := range i.sections {
		out.Sections[n] = twin.Encode(nil, s)
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *identity) UnmarshalJSON(text []byte) error {
	var in identityJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*i = identity{ID: in.ID, Status: in.Status, Reason: in.Reason, Connected: in.Connected, Messages: in.Messages, Keys: in.Keys}
	for n, encoded := range in.Sections {
		s, err := twin.Decode(encoded)
		if err != nil {
			return fmt.Errorf("the %s of %s: %w", section(n), in.ID, err)
		}
		i.sections[n] = s
	}
	return nil
}

func section(n int) string { return [...]string{"tags", "desired", "reported"}[n] }

// named returns a new name.
func (m *memory) named(prefix string) string {
	m.Serial++
	return fmt.Sprintf("%s%d", prefix, m.Serial)
}

// run returns the run of an id, nil when there is none.
func (m *memory) run(id string) *run {
	for _, r := range m.Runs {
		if r.ID == id {
			return r
		}
	}
	return nil
}
