package pattern

import "github.com/muster-hub/muster/engine/rollout"

// ParseManifest reads a manifest from its JSON form, sets its defaults and
// checks it. Members that it doesn't have are errors. The error is
// [rollout.Faults], whose paths begin at the manifest: "triggers[0].cron".
func ParseManifest(text []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := rollout.Decode(text, "", m); err != nil {
		return nil, err
	}
	return m, m.Validate()
}

// Validate says what is wrong with a manifest; nil: nothing. The error is
// [rollout.Faults].
func (m *Manifest) Validate() error { return nil }
