package query

import (
	"errors"
	"slices"
	"strings"
)

// ParseTarget parses the target condition of a configuration: of devices what
// stands behind WHERE, or "*"; of modules the end of a query, from FROM
// devices.modules on. It may read deviceId, moduleId of modules, tags and reported
// properties, and the time not at all: what a configuration selects changes when
// a twin does. The query selects whole twins; errors are an *Error with places in
// the text that was given.
func ParseTarget(source Source, text string, o Options) (*Query, error) {
	whole, shift := "SELECT * ", len("SELECT * ")
	switch {
	case source == Modules:
		whole += text
	case strings.TrimSpace(text) == "*":
		return Parse("SELECT * FROM devices", o)
	default:
		whole += "FROM devices WHERE " + text
		shift = len(whole) - len(text)
	}
	refuse := func(at int, found, expected string) error {
		return &Error{Text: text, At: max(at-shift, 0), Found: found, Expected: expected}
	}
	q, err := Parse(whole, o)
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return nil, err
		}
		return nil, refuse(e.At, e.Found, e.Expected)
	}
	if q.source != source {
		return nil, refuse(max(shift, keywordAt(whole, "FROM")), q.source.String()+", which the content is not for", "FROM "+source.String())
	}
	if err := CheckLive(q); err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return nil, refuse(e.At, strings.TrimSuffix(e.Found, " in a live query"), "a condition and nothing behind it")
		}
		return nil, err
	}
	expected := "deviceId, tags.* or properties.reported.*"
	if source == Modules {
		expected = "deviceId, moduleId, tags.* or properties.reported.*"
	}
	walk(q.where, func(e expr) {
		switch e := e.(type) {
		case *ref:
			if err == nil && !isTarget(source, e.path) {
				err = refuse(e.offset(), quoted(e.path.text())+" in a target condition", expected)
			}
		case *call:
			if err == nil && isNow(e) {
				err = refuse(e.offset(), "now() in a target condition", "a comparison with a value: a twin is looked at when it changes, and not when time passes")
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return q, nil
}

func isTarget(source Source, p Path) bool {
	switch p[0] {
	case "deviceId", "tags":
		return true
	case "moduleId":
		return source == Modules
	}
	return len(p) > 1 && p[0] == "properties" && p[1] == "reported"
}

// CountKey is the only member of the row that Count gives.
const CountKey = "count"

// Count returns a query for how many rows the WHERE of q selects.
func (q *Query) Count() *Query {
	return &Query{text: q.text, source: q.source, where: q.where, top: -1, items: []item{{key: CountKey, aggregate: aggregateCount}}}
}

// Plain reports whether the query has a row for each twin that its WHERE
// selects: it neither aggregates nor stops at a number of rows.
func (q *Query) Plain() bool {
	return len(q.group) == 0 && q.having == nil && q.top < 0 && q.offset == 0 &&
		!slices.ContainsFunc(q.items, func(i item) bool { return i.aggregate != notAggregated })
}
