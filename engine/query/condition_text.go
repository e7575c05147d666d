package query

import (
	"errors"
	"strings"
)

// ParseCondition parses what stands behind WHERE in a query over source, and
// gives the query for the whole twins that it selects; "*" selects all. Errors
// count from the beginning of the condition.
func ParseCondition(source Source, text string, o Options) (*Query, error) {
	before := "SELECT * FROM " + source.String()
	condition := ""
	if strings.TrimSpace(text) != "*" {
		before += " WHERE "
		condition = text
	}
	q, err := Parse(before+condition, o)
	if e, is := errors.AsType[*Error](err); is {
		return nil, &Error{Text: condition, At: max(0, e.At-len(before)), Found: e.Found, Expected: e.Expected}
	}
	if err == nil && !q.Plain() {
		return nil, &Error{Text: condition, At: len(condition), Found: "more than a condition", Expected: "what stands behind WHERE, and nothing else"}
	}
	return q, err
}
