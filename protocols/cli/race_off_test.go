//go:build !race

package cli

// raceDetector says that tests run some ten times as slowly.
const raceDetector = false
