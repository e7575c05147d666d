// Package pattern is what a durable program is, without any Lua and any store:
// its manifest, its bundle of files, the steps that it may take, and the state
// of one of its runs.
//
// A run's program reads as straight-line code for one device. Nothing of it is
// alive while it waits: each host call that leaves the sandbox is a [Step] of
// the run's journal, and an [Activation] runs the program from its top, answered
// from the journal, until it takes a step that is not there yet. What it did is
// its [Outcome]. [Run.Take] puts that into the run: whoever runs programs (the
// engine in a transaction, a test of a pattern over fake devices) supplies the
// [World] on which steps act. A run is then [Waiting] for its last step, or
// [Ready] to be activated again, or it has ended.
//
// The package is pure: no I/O, no clock (time is an argument), no randomness.
//
// # What a step may be
//
// The table [Operations] lists every host call once: its shape, what it needs,
// and which of four ways it takes.
//
//   - Local: the worker answers it itself from what the activation holds (the
//     twin, the time, a seed). The journal keeps the answer.
//   - Assumed: the hub performs it in the transaction that stores it, and it
//     gives nothing back; the program goes on as if it had succeeded. If it does
//     not, the steps behind it are dropped, and the program runs again to find
//     the error where the call is.
//   - Immediate: as Assumed, but its answer is needed: the activation ends.
//   - Open: its answer comes later: a device's, a person's, a moment's.
package pattern
