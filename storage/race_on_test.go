//go:build race

package storage

// raceDetector says that tests run some ten times as slowly.
const raceDetector = true
