package query

// Function describes a function of the language.
type Function struct {
	Name      string // upper-case; any case is taken
	Arguments string // as documentation shows them: "(string, start, length)"
	Does      string // what it gives, one sentence
	Extension bool   // not in IoT Hub's language over twins
}

// Functions returns all functions in order of name.
func Functions() []Function { return nil }
