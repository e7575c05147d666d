//go:build !race

package configuration

const raceDetector = false
