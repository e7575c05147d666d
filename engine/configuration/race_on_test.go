//go:build race

package configuration

// raceDetector says that tests run some twenty times as slowly.
const raceDetector = true
