package query

import "time"

// Plan is how a query was answered: what EXPLAIN shows.
type Plan struct {
	Rows      int64         `json:"rows"`      // of the collection
	Selected  int64         `json:"selected"`  // that the condition let through, as far as was looked
	Documents int64         `json:"documents"` // loaded
	Memory    int64         `json:"memory"`    // bytes kept for the answer
	Time      time.Duration `json:"time"`      // nanoseconds
	Steps     []*Step       `json:"steps"`     // in the order in which they run
	Missing   []Missing     `json:"missing,omitempty"`
}

// Step is one step of a Plan.
type Step struct {
	Kind     string        `json:"kind"`           // what is done, such as "column lookup"
	Path     string        `json:"path,omitempty"` // of the column
	Text     string        `json:"text,omitempty"` // the condition
	Estimate float64       `json:"estimate"`       // share of rows expected to pass; -1 when unknown
	Rows     int64         `json:"rows"`           // looked at
	Selected int64         `json:"selected"`       // passed
	Time     time.Duration `json:"time"`           // nanoseconds
	Memory   int64         `json:"memory,omitempty"`
	Note     string        `json:"note,omitempty"`
	Steps    []*Step       `json:"steps,omitempty"` // what it consists of
}

// Missing is a path that has no column, and why.
type Missing struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// String returns the plan as an indented text for people.
func (p *Plan) String() string { return "" }
