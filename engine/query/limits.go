package query

import "time"

// What a text may cost, whoever sends it.
const (
	maxText       = 64 << 10 // bytes of a query or predicate
	maxTextStrict = 8192     // characters of a query in IoT Hub's grammar
	maxDepth      = 100      // brackets, calls, NOTs and signs inside each other
	maxChain      = 1000     // operators of arithmetic in a row
	maxSegments   = 64       // of a path
	maxPattern    = 1 << 10  // bytes of a pattern of LIKE or REGEXP
	maxMachine    = 250      // instructions that a regular expression compiles to
	maxSteps      = 1000     // steps that all patterns of a text take for a character
	maxMatched    = 4 << 10  // bytes of a string that LIKE and REGEXP look at; twins hold no longer ones
	maxBuilt      = 64 << 10 // bytes of a string that a function may build
	maxItems      = 1000     // that are selected, grouped or ordered by
	maxRows       = 1 << 31  // that TOP, LIMIT and OFFSET can name
	maxJSONDepth  = 100      // of a document

	maxShift = 100 * 365 * 24 * time.Hour // between now() and the time that is compared
)
