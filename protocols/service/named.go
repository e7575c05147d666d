package service

import (
	"slices"
	"strconv"
	"strings"
)

// What the lists of records with names and versions have in common: they are
// short enough to be read whole.

// pageOfNames cuts a page out of a whole list that is in the order of names.
func pageOfNames[T, D any](c *call, list string, all []T, name func(T) string, shown func(T) D) (answer, error) {
	return pageOfAll(c, list, all, name, func(v T, after string) bool { return name(v) <= after }, shown)
}

// pageOfVersions cuts a page out of a whole list, newest first.
func pageOfVersions[T, D any](c *call, list string, all []T, version func(T) uint64, shown func(T) D) (answer, error) {
	return pageOfAll(c, list, all, func(v T) string { return strconv.FormatUint(version(v), 10) }, func(v T, after string) bool {
		n, err := strconv.ParseUint(after, 10, 64)
		return err == nil && version(v) >= n
	}, shown)
}

// pageOfAll cuts a page out of a whole list: position is where a record stands in
// it, and seen says whether the pages up to a position had it.
func pageOfAll[T, D any](c *call, list string, all []T, position func(T) string, seen func(v T, after string) bool, shown func(T) D) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	filter := strings.Join(c.params, "/")
	if label := c.query.Get("label"); label != "" {
		filter = label
	}
	after, err := parseCursor(c.query.Get("cursor"), list, filter)
	if err != nil {
		return answer{}, err
	}
	if after != "" {
		all = slices.DeleteFunc(all, func(v T) bool { return seen(v, after) })
	}
	body := page[D]{}
	if len(all) > limit {
		all = all[:limit]
		body.Cursor = makeCursor(list, filter, position(all[limit-1]))
	}
	body.Items = show(all, shown)
	return answer{body: body}, nil
}

// condition is If-Match's ETag without quotes, empty when there is none.
func (c *call) condition() string { return strings.Trim(c.r.Header.Get("If-Match"), `"`) }
