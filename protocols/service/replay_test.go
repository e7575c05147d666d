package service

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"testing"
	"time"
)

func TestReplays(t *testing.T) {
	s := newReplays()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key := replayKey{"policy:a", "POST /x", "k"}
	body := sha256.Sum256([]byte("one"))
	if r, err := s.begin(key, body, now); r != nil || err != nil {
		t.Fatalf("first: %v, %v", r, err)
	}
	if _, err := s.begin(key, body, now); err == nil || failureOf(err, shapeProblem).status != http.StatusConflict {
		t.Errorf("while it runs: %v", err)
	}
	s.finish(key, true, 200, http.Header{"A": {"b"}}, []byte("answer"))
	if r, err := s.begin(key, body, now.Add(replayAge-1)); err != nil || string(r.content) != "answer" {
		t.Errorf("again: %v, %v", r, err)
	}
	if _, err := s.begin(key, sha256.Sum256([]byte("two")), now); err == nil || failureOf(err, shapeProblem).status != http.StatusUnprocessableEntity {
		t.Errorf("another body: %v", err)
	}
	if r, err := s.begin(replayKey{"policy:b", "POST /x", "k"}, body, now); r != nil || err != nil {
		t.Errorf("another principal: %v, %v", r, err)
	}
	if r, err := s.begin(key, body, now.Add(replayAge)); r != nil || err != nil {
		t.Errorf("after its age: %v, %v", r, err)
	}
	s.finish(key, false, 0, nil, nil)
	if r, err := s.begin(key, body, now.Add(replayAge)); r != nil || err != nil {
		t.Errorf("after a failure: %v, %v", r, err)
	}
}

func TestReplaysAreBounded(t *testing.T) {
	s := newReplays()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for p := range 20 {
		for i := range replayEach + 5 {
			k := replayKey{"policy:" + strconv.Itoa(p), "POST /x", strconv.Itoa(i)}
			if _, err := s.begin(k, [32]byte{}, now); err != nil {
				t.Fatal(err)
			}
			s.finish(k, true, 200, nil, make([]byte, 4096))
			if len(s.all) != s.order.Len() || s.order.Len() > replayMost || s.bytes > replayBytes || s.each[k.principal] > replayEach {
				t.Fatalf("%d answers, %d of the principal, %d bytes", s.order.Len(), s.each[k.principal], s.bytes)
			}
		}
	}
	if s.bytes != s.order.Len()*4096 {
		t.Errorf("%d bytes for %d answers", s.bytes, s.order.Len())
	}
}
