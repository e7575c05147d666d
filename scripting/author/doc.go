// Package author is what helps to write a pattern, besides its tests: a check of
// the source for what install would refuse and what would go wrong later, and
// the folder that a new pattern begins with.
package author
