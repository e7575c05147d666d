//go:build race

package rollout

// raceDetector says that tests run some twenty times as slowly.
const raceDetector = true
