package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretNeverPrints(t *testing.T) {
	const text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	type record struct {
		Name string
		Key  Secret
	}
	s := Secret(text)
	p := SharedAccessPolicy{Name: "p", PrimaryKey: s, SecondaryKey: s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%e", "%c", "%10.3s", "%T %v"} {
		for _, v := range []any{s, &s, []Secret{s}, map[string]Secret{"k": s}, record{"n", s}, &record{"n", s}, p, ConnectionString{SharedAccessKey: s}.LogValue()} {
			if verb == "%T %v" {
				fmt.Fprintf(&out, verb, v, v)
			} else {
				fmt.Fprintf(&out, verb+"\n", v)
			}
		}
	}
	fmt.Fprintln(&out, s, p, errors.Join(fmt.Errorf("key %v", s)))
	fmt.Fprintf(&out, "%#v\n", ConnectionString{HostName: "h", SharedAccessKey: s})
	for _, v := range []any{s, record{"n", s}, p, map[string]any{"k": s}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("key", slog.Any("key", s), slog.Any("policy", p), slog.Any("connection", ConnectionString{SharedAccessKey: s}))
	logger = slog.New(slog.NewTextHandler(&log, nil))
	logger.Info("key", slog.Any("key", s), slog.Any("policy", p), slog.Any("connection", ConnectionString{SharedAccessKey: s}))
	out.Write(log.Bytes())
	hexText := fmt.Sprintf("%x", text)
	for _, leak := range []string{text, text[:10], hexText, strings.ToUpper(hexText)} {
		if i := strings.Index(out.String(), leak); i >= 0 {
			t.Errorf("the secret shows: ...%s", out.String()[max(0, i-40):i+20])
		}
	}
	if s.Reveal() != text || s.String() != "***" || s.GoString() != "***" {
		t.Error("Reveal or String")
	}
	if !strings.Contains(out.String(), "***") {
		t.Error("nothing was written")
	}
}

func TestNewKey(t *testing.T) {
	a, b := NewKey(), NewKey()
	raw, err := a.Bytes()
	if err != nil || len(raw) != 32 || a == b {
		t.Errorf("got %d bytes, %v", len(raw), err)
	}
	if err := CheckKey(a.Reveal()); err != nil {
		t.Errorf("a new key is refused: %v", err)
	}
}

func TestCheckKey(t *testing.T) {
	of := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, n := range []int{16, 32, 33, 64} {
		if err := CheckKey(of(n)); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	for name, key := range map[string]string{
		"empty": "", "15 bytes": of(15), "65 bytes": of(65), "huge": of(100_000),
		"no padding": strings.TrimRight(of(32), "="), "not base64": "this is not a key at all, no!", "url alphabet": strings.Repeat("-_", 16),
	} {
		err := CheckKey(key)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
}
