package service

import "testing"

func TestReplaysRunOnce(t *testing.T) {
	s := newReplays()
	key := replayKey{"policy:a", "POST /x", "k"}
	if !s.begin(key) {
		t.Fatal("the first request is refused")
	}
	if s.begin(key) {
		t.Error("the same request runs twice at once")
	}
	for _, other := range []replayKey{{"policy:b", "POST /x", "k"}, {"policy:a", "POST /y", "k"}, {"policy:a", "POST /x", "j"}} {
		if !s.begin(other) {
			t.Errorf("%v is refused while %v runs", other, key)
		}
		s.finish(other)
	}
	s.finish(key)
	if !s.begin(key) {
		t.Error("a request that ended still counts as running")
	}
	s.finish(key)
	if len(s.running) != 0 {
		t.Errorf("%d requests are noted for good", len(s.running))
	}
}
