//go:build race

package scripting

import "time"

const (
	raceDetector = true
	insideMost   = 20 * time.Second // everything is slower
)
