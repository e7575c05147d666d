//go:build !race

package pattern

// raceDetector says that tests run ten times slower than without it.
const raceDetector = false
