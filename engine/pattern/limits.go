package pattern

import "time"

// Limits bound programs and runs. There is one set of them; a manifest may ask
// for less.
const (
	MaxInstructions = 200_000     // of one activation
	MaxTime         = time.Second // of one activation, in the worker
	MaxFrames       = 160         // of nested calls
	MaxString       = 1 << 20     // bytes of one string
	MaxWorker       = 64 << 20    // bytes of a worker's memory
	MaxSteps        = 1000        // of one entry of a run
	MaxJournal      = 256 << 10   // bytes of a run's steps
	MaxValue        = 64 << 10    // bytes of one argument or result, as JSON
	MaxDepth        = 32          // of nested tables in such a value
	MaxKept         = 16 << 10    // bytes of what a run keeps
	MaxLogs         = 200         // lines of a run, the newest
	MaxLogLine      = 2 << 10     // bytes of one
	MaxBatch        = 64          // new steps of one activation
	MaxWait         = 30 * 24 * time.Hour
	MaxRun          = 365 * 24 * time.Hour
	MaxFiles        = 64        // of a bundle
	MaxBundle       = 1 << 20   // bytes of a bundle's files
	MaxFile         = 256 << 10 // bytes of one of them
	MaxHTTPBody     = 256 << 10 // bytes either way of an http step
	MaxHTTPTime     = 30 * time.Second
	MaxRows         = 1000 // of one fleet:query
)
