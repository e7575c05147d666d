// Package query is IoT Hub's query language over twins, with Muster's
// extensions, and the columns from which it is answered.
//
// A query's text, or a bare predicate as in `tags.site == "A"`, is parsed to one
// syntax tree (Query, Expr). A tree is bound to a plan over Columns: what asks
// about one path alone is answered from that path's column, what can't be split
// is evaluated row by row on the rows that are left.
//
// # What an expression gives
//
// The language is three-valued: a path that is missing is undefined, and only
// what is true selects. Types are not coerced.
//
//   - AND, OR and NOT: false AND x is false and true OR x is true whatever x is;
//     what is neither true nor false counts as undefined; NOT undefined is
//     undefined.
//   - = and !=: undefined when a side is undefined, an object or an array. null
//     equals null alone. Values of different types are not equal, so != between
//     them is true. Numbers are IEEE doubles.
//   - < <= > >=: number with number, string with string (by their bytes in
//     UTF-8, which is the order of code points); everything else is undefined.
//   - x IN [a, b] is x = a OR x = b, and NIN is its NOT; with an empty list, too,
//     they are undefined when x is undefined, an object or an array.
//   - + - * / %, and - before one: numbers only, else undefined, as is division by
//     zero and whatever is no finite number. % has the sign of its left side.
//   - LIKE and REGEXP: a string on the left, else undefined. % stands for any
//     characters, _ for one, a backslash takes away the meaning of the next.
//     REGEXP is RE2's syntax and finds the pattern anywhere in the string. Strings
//     beyond 4 KiB, which functions can build, are undefined: a row's time is
//     bounded.
//   - x BETWEEN a AND b is x >= a AND x <= b.
//   - path < now() - 15m, and with <=, > and >=: the path's string is read as an
//     RFC 3339 time; undefined when it is none.
//   - Functions: see Functions. An argument of a type that a function has no
//     meaning for gives undefined; IS_DEFINED and the type functions give true or
//     false whatever they are given.
//
// NOT binds looser than comparisons and tighter than AND, as in SQL.
//
// # Why the parser is made by hand
//
// An error must stand at the right column, say what was found and what was
// expected there, and guess what was meant: a reserved word in a path, a dash in
// a key, brackets of the wrong sort behind IN. A grammar library knows the
// tokens that could follow but not these reasons, and its message is about the
// grammar's rules. The grammar itself is small. Bare predicates are read by
// expr-lang/expr's parser, because they are expr's language, and translated.
//
// The package is pure: no I/O, no clock, no store; documents come through an
// interface, and the time is an argument.
package query
