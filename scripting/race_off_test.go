//go:build !race

package scripting

import "time"

const (
	raceDetector = false
	insideMost   = time.Second
)
