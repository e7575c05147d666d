//go:build race

package engine_test

// raceDetector says that tests run some ten times as slowly.
const raceDetector = true
