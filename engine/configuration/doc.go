// Package configuration decides which desired properties a twin gets from the
// automatic configurations whose conditions select it.
//
// A configuration's content is taken apart into settings: a path below the
// desired properties and what is to be there, which is a value that is no
// object, an empty object, or nothing (null). The rules are those of JSON merge
// patch, path by path:
//
//   - Two settings of different configurations conflict when they are of the same
//     path, or when the path of one lies above that of the other. An empty object
//     conflicts with nothing below it.
//   - Of two that conflict the one of the stronger configuration wins: of the
//     higher priority, or of the same and newer. One that loses is as if it were
//     not there: it does not take others with it.
//   - A configuration that wins one path at least is applied to the twin; one that
//     wins none is only targeted.
//   - A path that a configuration has set and that none sets any more is removed
//     if it still has the value that was set, with the objects that become empty by
//     it. When the configuration was deleted, it stays.
//
// The package is pure: no I/O, no clock. Its values are immutable and safe for
// concurrent use.
package configuration
