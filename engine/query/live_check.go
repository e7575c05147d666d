package query

import "strings"

// CheckLive says why a query can't be followed; an *Error.
func CheckLive(q *Query) error {
	refuse := func(at int, found, expected string) error {
		return &Error{Text: q.text, At: at, Found: found, Expected: expected}
	}
	if q.source.columnless() {
		return refuse(keywordAt(q.text, "FROM"), "FROM "+q.source.String()+" in a live query", "FROM devices or FROM devices.modules: only their changes are followed")
	}
	for _, it := range q.items {
		if it.aggregate != notAggregated {
			return refuse(it.at, it.aggregate.String()+" in a live query", "SELECT of properties: count or sum the rows where they are read")
		}
	}
	switch {
	case len(q.group) > 0:
		return refuse(keywordAt(q.text, "GROUP"), "GROUP BY in a live query", "SELECT of the properties to group by: group the rows where they are read")
	case q.having != nil:
		return refuse(keywordAt(q.text, "HAVING"), "HAVING in a live query", "a condition in WHERE")
	case len(q.order) > 0:
		return refuse(keywordAt(q.text, "ORDER"), "ORDER BY in a live query", "no order: rows come by id and then as they change; sort them where they are read")
	case q.top >= 0 && keywordAt(q.text, "TOP") > 0:
		return refuse(keywordAt(q.text, "TOP"), "TOP in a live query", "all rows: narrow the condition")
	case q.top >= 0 || q.offset > 0:
		return refuse(max(keywordAt(q.text, "LIMIT"), keywordAt(q.text, "OFFSET")), "LIMIT or OFFSET in a live query", "all rows: narrow the condition")
	}
	return nil
}

// keywordAt is where a keyword stands for the last time, from 0 on; 0 when it
// does not. A string with the keyword in it behind the keyword misleads it, which
// moves a caret.
func keywordAt(text, word string) int {
	isWord := func(i int) bool {
		return i >= 0 && i < len(text) && (text[i] == '_' || text[i] >= '0' && text[i] <= '9' || text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z')
	}
	for i := len(text) - len(word); i >= 0; i-- {
		if strings.EqualFold(text[i:i+len(word)], word) && !isWord(i-1) && !isWord(i+len(word)) {
			return i
		}
	}
	return 0
}
