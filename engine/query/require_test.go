package query

import (
	"slices"
	"testing"
)

func TestRequires(t *testing.T) {
	for _, c := range []struct {
		where string
		texts []string
		ok    bool
	}{
		{"devices.jobs.jobId = 'j1'", []string{"j1"}, true},
		{"'j1' = jobId AND status = 'failed'", []string{"j1"}, true},
		{"status = 'failed' AND (deviceId = 'd' AND jobId = 'j1')", []string{"j1"}, true},
		{"jobId = 'a' OR jobId IN ['b', 'c']", []string{"a", "b", "c"}, true},
		{"jobId = 'a' OR status = 'failed'", nil, false},
		{"jobId != 'a'", nil, false},
		{"NOT (jobId = 'a')", nil, false},
		{"jobId = 5", nil, true},
		{"jobId = deviceId", nil, false},
		{"jobId IN ['a', 5]", []string{"a"}, true},
		{"jobId > 'a'", nil, false},
		{"STARTSWITH(jobId, 'a')", nil, false},
		{"jobId = 'a' AND jobId = 'b'", []string{"a"}, true},
	} {
		q, err := Parse("SELECT * FROM devices.jobs WHERE "+c.where, Options{})
		if err != nil {
			t.Fatal(err)
		}
		texts, ok := q.Predicate().Requires(Path{"jobId"})
		if ok != c.ok || !slices.Equal(texts, c.texts) {
			t.Errorf("%s: %q, %v; want %q, %v", c.where, texts, ok, c.texts, c.ok)
		}
	}
	q, err := Parse("SELECT * FROM devices.jobs", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := q.Predicate().Requires(Path{"jobId"}); ok {
		t.Error("a query without WHERE requires something")
	}
}
