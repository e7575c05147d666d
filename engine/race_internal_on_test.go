//go:build race

package engine

// raceDetector says that tests run some ten times as slowly.
const raceDetector = true
