//go:build race

package query

// raceDetector says that tests run some ten times as slowly.
const raceDetector = true
