package query

import (
	"fmt"
	"strings"
	"time"
)

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
	Kind     string        `json:"kind"`              // what is done, such as "column lookup"
	Path     string        `json:"path,omitempty"`    // of the column
	Text     string        `json:"text,omitempty"`    // the condition
	Estimate Share         `json:"estimate,omitzero"` // of the rows that are expected to pass
	Rows     int64         `json:"rows"`              // looked at
	Selected int64         `json:"selected"`          // passed
	Time     time.Duration `json:"time"`              // nanoseconds
	Memory   int64         `json:"memory,omitempty"`
	Note     string        `json:"note,omitempty"`
	Steps    []*Step       `json:"steps,omitempty"` // what it consists of
}

// Share is a part of rows, 0 to 1; -1 when it is not known, which JSON leaves out.
type Share float64

// IsZero reports whether the share is not known.
func (s Share) IsZero() bool { return s < 0 }

// Missing is a path that has no column, and why.
type Missing struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// String returns the plan as an indented text for people.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows, %d selected, %d documents, %s, %s\n", p.Rows, p.Selected, p.Documents, shortTime(p.Time), shortBytes(p.Memory))
	for _, s := range p.Steps {
		s.write(&b, 0)
	}
	for _, m := range p.Missing {
		fmt.Fprintf(&b, "no column: %s: %s\n", m.Path, m.Why)
	}
	return b.String()
}

func (s *Step) write(b *strings.Builder, depth int) {
	b.WriteString(strings.Repeat("  ", depth) + s.Kind)
	switch {
	case s.Text != "":
		b.WriteString(": " + s.Text)
	case s.Path != "":
		b.WriteString(": " + s.Path)
	}
	if parts := s.parts(); len(parts) > 0 {
		b.WriteString(" (" + strings.Join(parts, ", ") + ")")
	}
	if s.Note != "" {
		b.WriteString(" - " + s.Note)
	}
	b.WriteByte('\n')
	for _, part := range s.Steps {
		part.write(b, depth+1)
	}
}

// parts are the step's numbers, as far as it has some: where rows are judged one
// by one the steps of the condition have not run.
func (s *Step) parts() []string {
	var list []string
	ran := s.Rows > 0 || s.Selected > 0 || s.Time > 0
	if ran {
		list = append(list, fmt.Sprintf("%d rows, %d pass", s.Rows, s.Selected))
	}
	if !s.Estimate.IsZero() {
		list = append(list, fmt.Sprintf("%.3g%% expected", s.Estimate*100))
	}
	if ran {
		list = append(list, shortTime(s.Time))
	}
	if s.Memory > 0 {
		list = append(list, shortBytes(s.Memory))
	}
	return list
}

func shortTime(d time.Duration) string { return d.Round(max(d/1000, 1)).String() }

func shortBytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
