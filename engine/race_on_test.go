//go:build race

package engine_test

// raceDetector says that tests run some ten times as slowly.
const raceDetector = true

// killRunDevices is on how many devices runs are killed.
const killRunDevices = 100
