//go:build race

package plugins_test

// raceDetector says that tests run ten times slower than without it.
const raceDetector = true
