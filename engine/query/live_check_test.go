package query

import (
	"strings"
	"testing"
)

// TestLiveErrorPath: the path is written as a query has it.
func TestLiveErrorPath(t *testing.T) {
	t.Parallel()
	e := &LiveError{Path{"tags", "my-key", "a]]b", "group"}}
	if !strings.HasPrefix(e.Error(), "the path tags.[[my-key]].[[a]]]]b]].[[group]] has no column") {
		t.Error(e)
	}
}
