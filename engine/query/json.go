package query

// ParseValue reads a JSON document.
func ParseValue(json []byte) (Value, error) { return Value{}, nil }
