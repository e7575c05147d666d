package pattern

import "encoding/json"

// Schema returns the JSON Schema of the parameters: an object that has nothing
// but them.
func (m *Manifest) Schema() json.RawMessage { return nil }

// Complete checks parameters, a JSON object or nothing, and fills in the
// defaults of those that are missing. The error is [rollout.Faults] with all that
// is wrong; paths begin at the parameters: "delay".
func (m *Manifest) Complete(params json.RawMessage) (json.RawMessage, error) { return params, nil }

// Parameter describes one parameter as a field of a form and as a flag.
type Parameter struct {
	Name     string // as the program sees it
	Title    string // for people; the name if the schema has none
	Text     string // the schema's description
	Type     string // "string", "integer", "number", "boolean", "object", "array"; empty: any
	Format   string // "duration", "query", "secret", "regex" or one of JSON Schema's; empty: none
	Required bool
	Default  json.RawMessage   // nil: none
	Enum     []json.RawMessage // values to choose from; nil: any
	// Bounds; nil: none. Of numbers the value's, of texts the length's in
	// characters, of lists the length's.
	Minimum, Maximum *float64
	Pattern          string // regular expression of a text
}

// Parameters describes the parameters, the required ones first, then by name.
func (m *Manifest) Parameters() []Parameter { return nil }
