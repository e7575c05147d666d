package query

import (
	"errors"
	"regexp"
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
	q, _, err := parseTarget(source, text, o)
	return q, err
}

// parseTarget is ParseTarget; read reports whether the text is a query at all.
func parseTarget(source Source, text string, o Options) (q *Query, read bool, err error) {
	whole, shift := "SELECT * ", len("SELECT * ")
	switch {
	case source == Modules:
		whole += text
	case strings.TrimSpace(text) == "*":
		q, err := Parse("SELECT * FROM devices", o)
		return q, true, err
	default:
		whole += "FROM devices WHERE " + text
		shift = len(whole) - len(text)
	}
	refuse := func(at int, found, expected string) error {
		return &Error{Text: text, At: max(at-shift, 0), Found: found, Expected: expected}
	}
	if q, err = Parse(whole, o); err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			err = refuse(e.At, e.Found, e.Expected)
		}
		return nil, false, err
	}
	if q.source != source {
		return nil, true, refuse(max(shift, keywordAt(whole, "FROM")), q.source.String()+", which the content is not for", "FROM "+source.String())
	}
	if err := CheckLive(q); err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return nil, true, refuse(e.At, strings.TrimSuffix(e.Found, " in a live query"), "a condition and nothing behind it")
		}
		return nil, true, err
	}
	expected := "deviceId, tags.* or properties.reported.*"
	if source == Modules {
		expected = "deviceId, moduleId, tags.* or properties.reported.*"
	}
	walk(q.where, func(e expr) {
		switch e := e.(type) {
		case *ref:
			if err == nil && !isTarget(source, e.path) {
				err = refuse(e.offset(), quoted(e.path.String())+" in a target condition", expected)
			}
		case *call:
			if err == nil && isNow(e) {
				err = refuse(e.offset(), "now() in a target condition", "a comparison with a value: a twin is looked at when it changes, and not when time passes")
			}
		}
	})
	if err != nil {
		return nil, true, err
	}
	return q, true, nil
}

// ParseWrittenTarget parses a target condition as people write it: as ParseTarget does, or else
// as a bare predicate, which of modules stands behind WHERE. It returns the condition, too, in the
// language of ParseTarget: the text itself when it is in that. Where neither can read the text, the
// error is that of the predicate if that came further than the beginning of a query did.
func ParseWrittenTarget(source Source, text string) (*Query, string, error) {
	q, read, err := parseTarget(source, text, Options{})
	if read {
		return q, text, err
	}
	before, bare := "", text
	if source == Modules {
		if before = modulesWhere.FindString(text); before == "" {
			return nil, "", err
		}
		bare = text[len(before):]
	}
	p, bareErr := ParsePredicate(bare)
	if bareErr != nil {
		e, is := errors.AsType[*Error](err)
		b, bareIs := errors.AsType[*Error](bareErr)
		if is && bareIs && e.At > len(before) && len(before)+b.At > e.At {
			return nil, "", &Error{Text: text, At: len(before) + b.At, Found: b.Found, Expected: b.Expected}
		}
		return nil, "", err
	}
	condition := before + format(p.where)
	q, err = ParseTarget(source, condition, Options{})
	return q, condition, err
}

// modulesWhere is what stands before the condition in a target condition of modules.
var modulesWhere = regexp.MustCompile(`(?i)^\s*from\s+devices\.modules\s+where\s+`)

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
