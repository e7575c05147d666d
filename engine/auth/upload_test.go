package auth

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestUploadToken(t *testing.T) {
	t.Parallel()
	key, expiry := []byte("0123456789abcdef"), time.Date(2026, 3, 1, 12, 0, 0, 7, time.FixedZone("", 3600))
	text := SignUpload(key, "id-1", "d/a b.txt", expiry)
	query, err := url.ParseQuery(strings.TrimPrefix(text, "?"))
	if err != nil || !strings.HasPrefix(text, "?") {
		t.Fatal(text, err)
	}
	token, err := ParseUploadToken(query)
	if err != nil {
		t.Fatal(err)
	}
	if token.ID != "id-1" || !token.Expiry.Equal(expiry.Truncate(time.Second)) {
		t.Errorf("got %+v", token)
	}
	if !token.Verify(key, "d/a b.txt") {
		t.Error("its own blob is refused")
	}
	for name, ok := range map[string]bool{
		"another blob":   token.Verify(key, "d/a b.txt2"),
		"another device": token.Verify(key, "e/a b.txt"),
		"another key":    token.Verify([]byte("0123456789abcdeg"), "d/a b.txt"),
		"no key":         token.Verify(nil, "d/a b.txt"),
		"a zero token":   UploadToken{}.Verify(key, ""),
	} {
		if ok {
			t.Errorf("%s passes", name)
		}
	}
	if token.Expired(expiry.Add(-2*time.Second)) || !token.Expired(expiry) {
		t.Error("it does not expire when it should")
	}
	for name, change := range map[string]func(url.Values){
		"no signature":    func(q url.Values) { q.Del("sig") },
		"two signatures":  func(q url.Values) { q.Add("sig", q.Get("sig")) },
		"short signature": func(q url.Values) { q.Set("sig", "AAAA") },
		"read":            func(q url.Values) { q.Set("sp", "rw") },
		"container":       func(q url.Values) { q.Set("sr", "c") },
		"version":         func(q url.Values) { q.Set("sv", "2099-01-01") },
		"odd time":        func(q url.Values) { q.Set("se", "2026-03-01T13:00:00+01:00") },
		"odd id":          func(q url.Values) { q.Set("si", "../x") },
		"long id":         func(q url.Values) { q.Set("si", strings.Repeat("a", 65)) },
	} {
		q, _ := url.ParseQuery(strings.TrimPrefix(text, "?"))
		change(q)
		if _, err := ParseUploadToken(q); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for name, change := range map[string][2]string{"later": {"se", "2027-03-01T11:00:00Z"}, "another upload": {"si", "id-2"}} {
		q, _ := url.ParseQuery(strings.TrimPrefix(text, "?"))
		q.Set(change[0], change[1])
		if token, err := ParseUploadToken(q); err != nil || token.Verify(key, "d/a b.txt") {
			t.Errorf("%s: %v, or it passes", name, err)
		}
	}
}

func FuzzParseUploadToken(f *testing.F) {
	key := []byte("0123456789abcdef")
	good := strings.TrimPrefix(SignUpload(key, "id-1", "d/a", time.Unix(2e9, 0)), "?")
	f.Add(good, "d/a")
	f.Add("sv=2019-12-12&sr=b&si=x&sp=cw&se=2026-01-31T12:00:00Z&sig=", "d/../e")
	f.Fuzz(func(t *testing.T, text, blob string) {
		query, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		token, err := ParseUploadToken(query)
		if err != nil || !token.Verify(key, blob) {
			return
		}
		// Only the one that was signed passes, however it is spelled.
		if blob != "d/a" || token.ID != "id-1" || token.Expiry.Unix() != 2e9 {
			t.Fatalf("%q opens %q", text, blob)
		}
	})
}
