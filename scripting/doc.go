// Package scripting runs the programs of patterns where they can do no harm.
//
// [Compile] makes a bundle a [Program], and [Execute] runs one activation of it
// from its top: calls that leave the sandbox are answered from the journal, and
// the first that is not there ends it. What Lua can reach is bounded inside (the
// sandbox: instructions, sizes, no input or output of any kind) and outside (a
// worker process that has given up files, network and environment, watched and
// killed by its [Pool]).
//
// The package knows package pattern, and no hub: a Pool is an interpreter for
// whoever runs patterns.
package scripting
