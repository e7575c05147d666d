package scenario

import "github.com/muster-hub/muster/engine/pattern"

// API lists what tests see beside what programs do: the function test, t,
// devices, runs and servers. The editor's stubs are written from it, and a test
// compares it with what is there.
func API() []pattern.Object { return nil }
