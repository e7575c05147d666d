package query

import (
	"slices"
	"strings"
)

// IsQuery reports whether a text is a query and not a bare predicate: whether
// it begins with SELECT, after space and comments.
func IsQuery(text string) bool {
	const keyword = "select"
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		comment, ok := strings.CutPrefix(text, "/*")
		if !ok {
			break
		}
		_, text, _ = strings.Cut(comment, "*/")
	}
	if len(text) < len(keyword) || !strings.EqualFold(text[:len(keyword)], keyword) {
		return false
	}
	rest := text[len(keyword):]
	return rest == "" || !wordByte(rest[0]) && rest[0] != '.' && rest[0] != '('
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= 0x80
}

// Keys returns the members of a row of the result in the order in which they
// were selected; nil of whole twins. Of whole rows of jobs and runs they are all
// that such a row may have.
func (q *Query) Keys() []string {
	if q.star && q.source.columnless() {
		return slices.Clone(q.source.roots())
	}
	if q.star {
		return nil
	}
	keys := make([]string, 0, len(q.items))
	for _, i := range q.items {
		keys = append(keys, i.key)
	}
	return keys
}
