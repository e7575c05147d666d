// Package query is IoT Hub's query language over twins, with Muster's
// extensions, and the columns from which it is answered.
//
// A query's text, or a bare predicate as in `tags.site == "A"`, is parsed to one
// syntax tree (Query, Expr). A tree is bound to a plan over Columns: what asks
// about one path alone is answered from that path's column, what can't be split
// is evaluated row by row on the rows that are left.
//
// The language is three-valued: a path that is missing is undefined, a
// comparison with it is undefined, and only what is true selects. Types are not
// coerced.
//
// The package is pure: no I/O, no clock, no store; documents come through an
// interface, and the time is an argument.
package query
