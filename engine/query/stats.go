package query

// Stats is what columns hold at the moment.
type Stats struct {
	Rows    int
	Columns int
	Bytes   int64 // of columns, dictionaries and ids
	Entries int   // of dictionaries
	Missing []Missing
	Refused int64 // paths that got no column, counted each time one is refused
}

// Stats returns what the columns hold.
func (c *Columns) Stats() Stats { return Stats{} }

// Schema is a report of the paths that rows have.
type Schema struct {
	Rows      int          `json:"rows"`
	Paths     []SchemaPath `json:"paths"`     // by name
	Truncated bool         `json:"truncated"` // there are more paths
}

// SchemaPath is a path of a Schema.
type SchemaPath struct {
	Path     Path           `json:"path"`
	Types    map[string]int `json:"types"` // rows by type
	Rows     int            `json:"rows"`  // that have the path
	Examples []Value        `json:"-"`     // up to three
	Why      string         `json:"why,omitempty"`
}

// Schema returns up to limit paths.
func (c *Columns) Schema(limit int) Schema { return Schema{} }
