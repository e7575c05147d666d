// Package scenario runs the tests of a pattern: files of Lua that make fake
// devices, start the pattern on them and look at what came of it.
//
// There is no hub. A test has a hub of its own, in memory, which drives
// [pattern.Run] over its fake devices as the engine drives it over real ones:
// the same journal, the same capabilities, the same predicates and twins. Time
// is virtual, so that a day takes milliseconds, and nothing is left to chance:
// a test does the same each time.
//
// Whatever a test is about, some things are always checked: each activation is
// run twice and must do the same, the state of a run crosses JSON between two
// activations, and in the end the whole journal is replayed. With
// [Options.CrashEverywhere] each test is also repeated with a crash at every
// commit of its runs; see crash.go for what is compared.
//
// # What a test sees
//
// test(name, function(t) ... end) declares one. t makes devices (device, fleet),
// starts runs (run waits to a run's end, start does not; advance, at and finish
// let time pass), answers questions (approve, deny), stands in for what is
// outside (http, secret, pattern, kv, grant, deny_need), controls runs (cancel,
// undo), calls the other functions of a pattern (gate, check, applies), and looks
// at what came of it (equal, ok, matches, took_less_than, took_more_than, logs,
// phases, events, runs, uncertain). [API] lists all of it with words.
package scenario
