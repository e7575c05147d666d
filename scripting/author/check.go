package author

import (
	"github.com/muster-hub/muster/engine/pattern"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	LevelError   Level = "error"   // install refuses it, or it fails when it gets there
	LevelWarning Level = "warning" // it is likely not what is meant
)

// Finding is something that Check found.
type Finding struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // from 1; 0: the file as a whole
	Level   Level  `json:"level"`
	Rule    string `json:"rule"` // kebab-case
	Message string `json:"message"`
	Next    string `json:"next,omitempty"` // what to do
}

// Check looks at a bundle: everything for which it would not be installed, and
// what its source shows. Findings are in order of files and lines. The manifest
// is nil if it can't be read.
func Check(b *pattern.Bundle) ([]Finding, *pattern.Manifest) { return nil, nil }
