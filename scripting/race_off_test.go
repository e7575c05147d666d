//go:build !race

package scripting

import "time"

const (
	raceDetector = false
	insideMost   = 5 * time.Second // a tenth of a second where little else runs
)
