package engine_test

import (
	"testing"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

func TestAnswersSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	h := enginetest.New(t, enginetest.Dir(dir))
	owner := enginetest.Owner()
	if _, found, err := h.FindAnswer(t.Context(), owner, "POST /x", "k"); found || err != nil {
		t.Fatalf("before: %v, %v", found, err)
	}
	a := engine.Answer{Request: [32]byte{1}, Status: 201, Header: map[string][]string{"Etag": {"1"}}, Content: []byte(`{"key":"secret"}`)}
	if err := h.KeepAnswer(t.Context(), owner, "POST /x", "k", a); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.KeepAnswer(t.Context(), owner, "POST /x", "big", engine.Answer{Content: make([]byte, 192<<10+1)}), engine.CodeTooLarge)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = enginetest.New(t, enginetest.Dir(dir))
	got, found, err := h.FindAnswer(t.Context(), owner, "POST /x", "k")
	if err != nil || !found || got.Status != 201 || got.Request != a.Request || got.Header["Etag"][0] != "1" || string(got.Content) != string(a.Content) {
		t.Fatalf("after: %+v, %v, %v", got, found, err)
	}
	other := engine.Caller{Principal: auth.Principal{Kind: auth.Policy, Name: "x"}}
	for _, c := range []struct {
		caller         engine.Caller
		operation, key string
	}{{other, "POST /x", "k"}, {owner, "POST /y", "k"}, {owner, "POST /x", "j"}} {
		if _, found, err := h.FindAnswer(t.Context(), c.caller, c.operation, c.key); found || err != nil {
			t.Errorf("%s %s %s: found %v, %v", c.caller.Principal, c.operation, c.key, found, err)
		}
	}
}
