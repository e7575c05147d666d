package engine

// ColumnsRead has f called when the rows of a hub's columns are read, and what
// changed meanwhile is not yet. It is no step that Options.Reached tells of: the
// columns are built beside everything else, and who hears of steps counts them.
func ColumnsRead(o *Options, f func()) { o.columnsRead = f }
