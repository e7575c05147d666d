package query

// Options says which language a text is in.
type Options struct {
	// Strict takes IoT Hub's grammar alone: an extension of Muster's is an
	// error that says so.
	Strict bool
}

// Parse parses a query. Whatever is wrong with the text is an *Error. A text
// may have 64 KiB (8,192 characters if strict) and nest 100 deep.
func Parse(text string, o Options) (*Query, error) {
	return nil, &Error{Text: text, Found: "a query", Expected: "a parser"}
}

// ParsePredicate parses a bare predicate, as in `tags.site == "A" and reported.battery < 20`.
func ParsePredicate(text string) (*Predicate, error) {
	return nil, &Error{Text: text, Found: "a predicate", Expected: "a parser"}
}
