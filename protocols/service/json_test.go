package service

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine"
)

func code(err error) engine.Code {
	if err == nil {
		return engine.CodeCanceled + 1 // none
	}
	return engine.AsError(err).Code
}

const noError = engine.CodeCanceled + 1

func TestCheckJSON(t *testing.T) {
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	for _, tc := range []struct {
		name, in string
		ok       bool
	}{
		{"object", `{"a":[1,2,{"b":null}]}`, true},
		{"brackets in strings", `"` + strings.Repeat("[", 200) + `\"{"`, true},
		{"deepest", deep, true},
		{"too deep", "[" + deep + "]", false},
		{"trailing", `{} {}`, false},
		{"cut", `{"a":`, false},
		{"not UTF-8", "\"\xff\"", false},
		{"byte order mark", "\ufeff{}", false},
		{"control character", "\"\x01\"", false},
		{"huge number", strings.Repeat("9", 4000), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := checkJSON([]byte(tc.in))
			if (err == nil) != tc.ok || err != nil && code(err) != engine.CodeFormat {
				t.Errorf("got %v, want ok=%v", err, tc.ok)
			}
		})
	}
}

func TestObject(t *testing.T) {
	f, err := object([]byte(" { \"a\" : 1 , \"A\":\"x\\u0041\" ,\"\\u0062\":[ 1 , 2 ] , \"c\":{\"d\":\"}\"},\"e\":true } "), "")
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"a": "1", "A": `"x\u0041"`, "b": "[ 1 , 2 ]", "c": `{"d":"}"}`, "e": "true"} {
		if got := string(f.members[key]); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
	if len(f.members) != 5 {
		t.Errorf("got %d members, want 5", len(f.members))
	}
	if s, err := f.text("A"); s != "xA" || err != nil {
		t.Errorf("got %q, %v", s, err)
	}
	if s, err := f.text("missing"); s != "" || err != nil {
		t.Errorf("got %q, %v", s, err)
	}
	if _, err := f.text("a"); code(err) != engine.CodeFormat {
		t.Errorf("a number as text: %v", err)
	}
	for _, bad := range []string{`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[]`, `null`, `"x"`, `1`} {
		if _, err := object([]byte(bad), "thing"); code(err) != engine.CodeFormat {
			t.Errorf("%s: got %v, want a format error", bad, err)
		}
	}
}

// FuzzObject compares the hand-written walk with encoding/json.
func FuzzObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"b":[{"c":"}"}],"d":"\\\""}`, ` {"x" : -1.5e3 , "y":null} `, `{"":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkJSON(data) != nil {
			return
		}
		var want map[string]json.RawMessage
		isObject := json.Unmarshal(data, &want) == nil && want != nil
		got, err := object(data, "")
		if err != nil {
			if isObject && !strings.Contains(err.Error(), "twice") {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if !isObject || len(got.members) != len(want) {
			t.Fatalf("%q: %d members, want %d", data, len(got.members), len(want))
		}
		for k, v := range want {
			if string(got.members[k]) != string(v) {
				t.Fatalf("%q: member %q is %q, want %q", data, k, got.members[k], v)
			}
		}
	})
}
