package pattern

// libraries are those that Lua does not have.
func libraries() []Object {
	text := func(name, about string) Field { return Field{Name: name, Type: "string", Text: about} }
	return []Object{
		{
			Name: "json", Text: "JSON, as values cross between programs and the hub.",
			Fields: []Field{{Name: "null", Type: "any", Text: "Stands for null, which nil can't: deletes a member in a patch."}},
			Functions: []Function{
				{Name: "encode", Text: "Writes a value as JSON, with sorted keys.", Params: []Field{{Name: "value", Type: "any"}}, Returns: []Field{text("text", "")}},
				{Name: "decode", Text: "Reads JSON.", Params: []Field{text("text", "")}, Returns: []Field{{Name: "value", Type: "any"}}},
				{Name: "array", Text: "Marks a table as a list, so that an empty one becomes [] and not {}.", Params: []Field{{Name: "list", Type: "any[]"}}, Returns: []Field{{Name: "list", Type: "any[]", Text: "The same table."}}},
			},
		},
		{
			Name: "base64", Text: "Base64 with padding.",
			Functions: []Function{
				{Name: "encode", Text: "Encodes bytes.", Params: []Field{text("bytes", "")}, Returns: []Field{text("text", "")}},
				{Name: "decode", Text: "Decodes a text; one that is none raises `invalid`.", Params: []Field{text("text", "")}, Returns: []Field{text("bytes", "")}},
			},
		},
		{
			Name: "hex", Text: "Hexadecimal digits.",
			Functions: []Function{
				{Name: "encode", Text: "Encodes bytes, in small letters.", Params: []Field{text("bytes", "")}, Returns: []Field{text("text", "")}},
				{Name: "decode", Text: "Decodes a text; one that is none raises `invalid`.", Params: []Field{text("text", "")}, Returns: []Field{text("bytes", "")}},
			},
		},
		{
			Name: "hash", Text: "Hashes.",
			Functions: []Function{
				{Name: "sha256", Text: "Gives the SHA-256 of bytes.", Params: []Field{text("bytes", "")}, Returns: []Field{text("hex", "64 digits.")}},
			},
		},
		{
			Name: "hmac", Text: "Authentication codes.",
			Functions: []Function{
				{Name: "sha256", Text: "Gives the HMAC-SHA-256 of bytes.", Params: []Field{text("key", ""), text("bytes", "")}, Returns: []Field{text("hex", "64 digits.")}},
			},
		},
		{
			Name: "time", Text: "Times are texts as of RFC 3339, durations texts such as 90s, 5m, 6h or 2d. There is no clock but ctx:now().",
			Functions: []Function{
				{Name: "parse", Text: "Gives a time in seconds since 1970; a text that is none raises `invalid`.", Params: []Field{{Name: "time", Type: typeTime}}, Returns: []Field{{Name: "seconds", Type: "number"}}},
				{Name: "format", Text: "Gives seconds since 1970 as a time, in UTC.", Params: []Field{{Name: "seconds", Type: "number"}}, Returns: []Field{{Name: "time", Type: typeTime}}},
				{Name: "add", Text: "Adds a duration to a time; one with - before it is taken away.", Params: []Field{{Name: "time", Type: typeTime}, {Name: "duration", Type: typeDuration}}, Returns: []Field{{Name: "time", Type: typeTime}}},
				{Name: "diff", Text: "Gives the seconds from one time to another.", Params: []Field{{Name: "later", Type: typeTime}, {Name: "earlier", Type: typeTime}}, Returns: []Field{{Name: "seconds", Type: "number"}}},
				{Name: "seconds", Text: "Gives a duration in seconds.", Params: []Field{{Name: "duration", Type: typeDuration}}, Returns: []Field{{Name: "seconds", Type: "number"}}},
				{Name: "duration", Text: "Gives seconds as a duration.", Params: []Field{{Name: "seconds", Type: "number"}}, Returns: []Field{{Name: "duration", Type: typeDuration}}},
			},
		},
		{
			Name: "version", Text: "Semantic versions.",
			Functions: []Function{
				{Name: "compare", Text: "Orders two versions; a text that is none raises `invalid`.", Params: []Field{text("a", ""), text("b", "")}, Returns: []Field{{Name: "order", Type: "integer", Text: "-1, 0 or 1: a comes before b, is equal, or comes after."}}},
				{
					Name: "satisfies", Text: "Says whether a version is in a range.",
					Params:  []Field{text("version", ""), text("range", "Such as `^1.2`, `~1.2.3`, `>=1.2, <3` or `1.x || 3.x`. A pre-release is only in a range that names one.")},
					Returns: []Field{{Name: "is", Type: "boolean"}},
				},
			},
		},
		{
			Name: "text", Text: "Texts for people.",
			Functions: []Function{
				{
					Name: "template", Text: "Puts values into a text: `{name}` and `{a.b}` stand for members of the table, `{{` for a brace. One that is not there raises `invalid`.",
					Params:  []Field{text("text", ""), {Name: "values", Type: "table"}},
					Returns: []Field{text("text", "")},
					Example: `text.template("{n} of {total} devices", { n = 3, total = 10 })`,
				},
			},
		},
	}
}
