package service

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/auth"
)

// route is a row of the table that everything else is made from.
type route struct {
	method     string
	pattern    string // "/devices/{id}"; "{rest...}" at the end takes any remainder
	operation  string // operationId, unique
	summary    string
	tag        string
	permission auth.Permission // what the engine asks for; 0: any caller that is known
	shape      shape
	query      []parameter
	ifMatch    presence
	request    any // zero value of the body's type; nil: none
	response   any // zero value of the answer's type; nil: none
	status     int // of success; 0: 200
	also       map[int]string
	maxBody    int64  // bytes; 0: maxBody
	idempotent bool   // takes an Idempotency-Key
	reads      bool   // changes nothing, though it is a POST
	held       bool   // stores what a restored hub does nothing about until it is resumed
	content    string // media type of an answer that is streamed; empty: JSON
	later      string
	handle     func(*call) (answer, error)
}

// parameter is a query parameter, for the OpenAPI document.
type parameter struct {
	name     string
	text     string
	kind     string // JSON Schema type
	required bool
}

// presence says whether a route looks at If-Match.
type presence uint8

const (
	unused presence = iota
	optional
	required
)

// label names the route in metrics: bounded, whatever clients send.
func (r *route) label() string { return r.method + " " + r.pattern }

// bodyLimit is how many bytes a body may have.
func (r *route) bodyLimit() int64 {
	if r.maxBody > 0 {
		return r.maxBody
	}
	return maxBody
}

// segment is one part of a pattern.
type segment struct {
	literal string // empty: a parameter
	rest    bool
}

type entry struct {
	*route
	segments []segment
}

// router finds routes by their number of segments, then one by one: the table
// is short, and literals must be compared without case, which a map can't.
type router struct {
	bySize map[int][]entry
	rest   []entry
}

// newRouter compiles the table. It panics on two rows that match the same requests.
func newRouter(table []*route) *router {
	r := &router{bySize: map[int][]entry{}}
	seen := map[string]bool{}
	for _, row := range table {
		e := entry{route: row}
		var form strings.Builder
		form.WriteString(row.method)
		for part := range strings.SplitSeq(strings.TrimPrefix(row.pattern, "/"), "/") {
			s := segment{literal: part}
			if strings.HasPrefix(part, "{") {
				s = segment{rest: strings.HasSuffix(part, "...}")}
			}
			e.segments = append(e.segments, s)
			form.WriteString("/" + strings.ToLower(s.literal))
		}
		if seen[form.String()] {
			panic("route " + row.label() + " stands twice in the table")
		}
		seen[form.String()] = true
		if e.segments[len(e.segments)-1].rest {
			r.rest = append(r.rest, e)
			continue
		}
		r.bySize[len(e.segments)] = append(r.bySize[len(e.segments)], e)
	}
	// A row with a literal where another has a parameter is the narrower one.
	for _, list := range r.bySize {
		slices.SortStableFunc(list, func(a, b entry) int {
			for i := range a.segments {
				if la, lb := a.segments[i].literal != "", b.segments[i].literal != ""; la != lb {
					if la {
						return -1
					}
					return 1
				}
			}
			return 0
		})
	}
	return r
}

// matched is a route with what the path gave it.
type matched struct {
	route  *route
	params []string
	path   string // decoded, with the table's spelling of literals
}

// match finds the route of a request. The path must be the escaped one: ids
// may hold every mark of a URL, and are decoded once, segment by segment,
// after the path was split. One trailing slash is tolerated.
func (r *router) match(method, escaped string) (matched, error) {
	raw := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	if n := len(raw); n > 1 && raw[n-1] == "" {
		raw = raw[:n-1]
	}
	parts := make([]string, len(raw))
	for i, s := range raw {
		part, err := url.PathUnescape(s)
		if err != nil || part == "" {
			return matched{}, unknownPath()
		}
		parts[i] = part
	}
	var allow []string
	for _, list := range [2][]entry{r.bySize[len(parts)], r.rest} {
		for _, e := range list {
			m, ok := e.match(parts)
			if !ok {
				continue
			}
			if e.method == method {
				return m, nil
			}
			if !slices.Contains(allow, e.method) {
				allow = append(allow, e.method)
			}
		}
	}
	if len(allow) == 0 {
		return matched{}, unknownPath()
	}
	slices.Sort(allow)
	return matched{}, &failure{status: http.StatusMethodNotAllowed, number: 405000, name: "GenericMethodNotAllowed", code: "MethodNotAllowed",
		text: "this path does not take that method; expected " + strings.Join(allow, ", "), next: "Use one of the methods that the Allow header names.",
		allow: strings.Join(allow, ", ")}
}

// match compares decoded segments with the pattern.
func (e entry) match(parts []string) (matched, bool) {
	m := matched{route: e.route}
	if len(parts) < len(e.segments) {
		return m, false
	}
	var path strings.Builder
	for i, s := range e.segments {
		part := parts[i]
		switch {
		case s.rest:
			part = strings.Join(parts[i:], "/")
			m.params = append(m.params, part)
		case s.literal == "":
			m.params = append(m.params, part)
		case strings.EqualFold(s.literal, part):
			part = s.literal
		default:
			return m, false
		}
		path.WriteString("/" + part)
	}
	m.path = path.String()
	return m, true
}

func unknownPath() error {
	return &failure{status: http.StatusNotFound, number: 404000, name: "GenericNotFound", code: "PathNotFound",
		text: "there is nothing at this path", next: "GET /api/v1/openapi.json lists every path."}
}
