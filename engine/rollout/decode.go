package rollout

// Decode reads JSON into a struct (by its json tags), strictly: members that it
// doesn't have, and members that come twice, are errors that say where and which
// one was perhaps meant; so are values of the wrong kind. Path is what errors
// call the document. The error is [Faults].
//
// Types that read themselves (json.Unmarshaler) do so; json.RawMessage takes
// what is there.
func Decode(text []byte, path string, into any) error { return nil }

// Error is one line.
func (f Faults) Error() string { return "" }
