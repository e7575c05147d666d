// Package querytest reads the scenarios of the query language: twins, a query,
// and what it answers. The same files test the language, test it again through
// REST, and are the examples of the reference page.
//
// A file is a subject. It begins with its title and some prose:
//
//	# Lists
//
//	IN selects where a value equals an element of the list.
//
//	twins fleet
//
// The twins are in fleet.json beside it, one JSON object after the other; lines
// that begin with "twin" and an object add some of the file's own. Cases follow:
//
//	== A value in a list [6]
//	SELECT * FROM devices WHERE tags.site IN ['A', 'B']
//	> d1 d3
//
// A case that begins with "--" instead is tested, but not shown on the page.
// The number in brackets is that of the contract's list of cases. Lines with a
// colon below the title are options: ": strict" has IoT Hub's grammar alone,
// ": bare" has a bare predicate, ": now 2026-11-29T12:00:00Z" sets the time,
// ": any order" leaves the order of rows open.
//
// "> " begins ids of twins, as SELECT * gives them (a module's is d1/m1), or a
// row as a JSON object, one a line; "> nothing" is an answer without rows. A
// line with a caret is an error: the caret stands below what is wrong, and the
// text behind it is the error's.
//
//	SELECT * FROM devices WHERE tags.site IN ('A')
//	                                         ^ found "(", expected a list
package querytest
