package auth

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

const vectorKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

var vectorExpiry = time.Unix(1893456000, 0)

// vectors are signatures made outside Muster, one for each spelling that the
// SDKs use.
var vectors = []struct{ sr, sig, resource string }{
	{"hub.example.com%2Fdevices%2Fdev1", "reBgGA/wBHljQTSQU9PDpSCkDsY+iV4gIYSXx5Q9KEk=", "hub.example.com/devices/dev1"},
	{"hub.example.com%2fdevices%2fdev1", "ukfI89fEH047b9qjjSC5G0MlPKmFhPPu8esGoxPGAkY=", "hub.example.com/devices/dev1"},
	{"hub.example.com/devices/dev1", "8CU+CNWlCzulTx+0iwlwKe0YaZuQ3U1lBbxztK78CqE=", "hub.example.com/devices/dev1"},
	{"hub.example.com%2Fdevices%2Fdev1%2Fmodules%2Fm1", "SYarbdwclJayywUahiRxneGmrITcKLKG1gcWGIJDyEk=", "hub.example.com/devices/dev1/modules/m1"},
	{"0ne00000001%2Fregistrations%2Fdev1", "VDThuSjG1gc7FTWtOGasw5iEQgfnUm/GS5bh5Cq81W4=", "0ne00000001/registrations/dev1"},
	{"0ne00000001/registrations/dev1", "JvgPy6LEwYpvvKzeeSYEHlIcVxcIjVMipskiSvqXn8k=", "0ne00000001/registrations/dev1"},
}

func token(t testing.TB, s string) Token {
	t.Helper()
	tok, err := ParseToken(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return tok
}

func raw(t testing.TB, key string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTokenVectors(t *testing.T) {
	key := raw(t, vectorKey)
	lower := strings.NewReplacer("%2B", "%2b", "%2F", "%2f", "%3D", "%3d")
	for _, v := range vectors {
		escaped := escape(v.sig)
		for _, sig := range []string{
			v.sig,                                   // nothing escaped: '+' is a plus, '/' a slash, '=' no separator
			escaped,                                 // upper case
			lower.Replace(escaped),                  // lower case, as C sends it
			strings.ReplaceAll(v.sig, "=", "%3D"),   // Python leaves the slash
			strings.ReplaceAll(escaped, "%2F", "/"), // mixed
		} {
			for _, form := range []string{
				"sr=%s&sig=%s&se=1893456000",
				"sr=%s&sig=%s&se=1893456000&skn=",
				"sig=%[2]s&se=1893456000&sr=%[1]s",
				"skn=&se=1893456000&sig=%[2]s&sr=%[1]s",
				"sr=%s&sig=%s&skn=service&se=1893456000",
				"sr=%s&x=y&sig=%s&se=1893456000&skn=de%%2fvice",
			} {
				s := "SharedAccessSignature " + fmt.Sprintf(form, v.sr, sig)
				tok := token(t, s)
				if !tok.Verify(key) {
					t.Errorf("%s does not verify", s)
				}
				if tok.Resource != v.resource || !tok.Expiry.Equal(vectorExpiry) {
					t.Errorf("%s: got %q, %v", s, tok.Resource, tok.Expiry)
				}
				want := ""
				if strings.Contains(form, "skn=service") {
					want = "service"
				} else if strings.Contains(form, "skn=de") {
					want = "de/vice"
				}
				if tok.Policy != want {
					t.Errorf("%s: policy %q, want %q", s, tok.Policy, want)
				}
			}
		}
	}
}

// A token counts in the spelling that was signed and in no other.
func TestTokenLiteral(t *testing.T) {
	key := raw(t, vectorKey)
	for i, v := range vectors {
		for j, w := range vectors {
			tok := token(t, "SharedAccessSignature sr="+w.sr+"&sig="+escape(v.sig)+"&se=1893456000")
			if got := tok.Verify(key); got != (i == j) {
				t.Errorf("signed %s, sent %s: verifies %v", v.sr, w.sr, got)
			}
		}
		tok := token(t, "SharedAccessSignature sr="+v.sr+"&sig="+escape(v.sig)+"&se=01893456000")
		if tok.Verify(key) {
			t.Errorf("%s verifies with another spelling of se", v.sr)
		}
	}
}

func TestTokenWrongKeys(t *testing.T) {
	key := raw(t, vectorKey)
	s := SignToken("hub.example.com/devices/dev1", key, "", vectorExpiry)
	tok := token(t, s)
	if tok.Verify(key[1:]) || tok.Verify(append([]byte{1}, key[1:]...)) {
		t.Error("another key verifies")
	}
	// HMAC takes an empty key: a record without keys must not let anybody in.
	none := token(t, SignToken("hub.example.com", nil, "service", vectorExpiry))
	if none.Verify(nil) || none.Verify([]byte{}) || none.VerifyKeys("", "") || (SharedAccessPolicy{}).Verify(none) {
		t.Error("an empty key verifies")
	}
	if (Token{}).Verify(key) {
		t.Error("the zero token verifies")
	}
	other := NewKey()
	for _, c := range []struct {
		keys []Secret
		want bool
	}{
		{[]Secret{vectorKey, other}, true},
		{[]Secret{other, vectorKey}, true},
		{[]Secret{"not base64!", vectorKey}, true},
		{[]Secret{other, other}, false},
		{[]Secret{"", "!"}, false},
		{nil, false},
	} {
		if got := tok.VerifyKeys(c.keys...); got != c.want {
			t.Errorf("%d keys: got %v, want %v", len(c.keys), got, c.want)
		}
	}
	if !(SharedAccessPolicy{PrimaryKey: other, SecondaryKey: vectorKey}).Verify(tok) {
		t.Error("the secondary key does not verify")
	}
}

func TestSignToken(t *testing.T) {
	key := raw(t, vectorKey)
	got := SignToken("hub.example.com/devices/dev1", key, "", vectorExpiry)
	want := "SharedAccessSignature sr=hub.example.com%2Fdevices%2Fdev1&sig=reBgGA%2FwBHljQTSQU9PDpSCkDsY%2BiV4gIYSXx5Q9KEk%3D&se=1893456000"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for _, resource := range []string{"hub", "localhost:8443", "hub/devices/a%b#c?d+e é", "[::1]:8443/devices/d"} {
		tok := token(t, SignToken(resource, key, "pol icy&=", vectorExpiry))
		if tok.Resource != resource || tok.Policy != "pol icy&=" || !tok.Verify(key) {
			t.Errorf("%s: got %q, %q", resource, tok.Resource, tok.Policy)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	const sig = "reBgGA%2FwBHljQTSQU9PDpSCkDsY%2BiV4gIYSXx5Q9KEk%3D"
	for name, s := range map[string]string{
		"empty":                "",
		"scheme alone":         "SharedAccessSignature",
		"scheme and space":     "SharedAccessSignature ",
		"other scheme":         "Bearer abc",
		"no space":             "SharedAccessSignaturesr=h&sig=" + sig + "&se=1",
		"no sr":                "SharedAccessSignature sig=" + sig + "&se=1",
		"empty sr":             "SharedAccessSignature sr=&sig=" + sig + "&se=1",
		"no sig":               "SharedAccessSignature sr=h&se=1",
		"empty sig":            "SharedAccessSignature sr=h&sig=&se=1",
		"no se":                "SharedAccessSignature sr=h&sig=" + sig,
		"empty se":             "SharedAccessSignature sr=h&sig=" + sig + "&se=",
		"se with sign":         "SharedAccessSignature sr=h&sig=" + sig + "&se=+1",
		"negative se":          "SharedAccessSignature sr=h&sig=" + sig + "&se=-1",
		"fraction":             "SharedAccessSignature sr=h&sig=" + sig + "&se=1.5",
		"hexadecimal":          "SharedAccessSignature sr=h&sig=" + sig + "&se=0x10",
		"underscore":           "SharedAccessSignature sr=h&sig=" + sig + "&se=1_0",
		"se beyond 64 bits":    "SharedAccessSignature sr=h&sig=" + sig + "&se=99999999999999999999",
		"sr twice":             "SharedAccessSignature sr=h&sr=h&sig=" + sig + "&se=1",
		"sig twice":            "SharedAccessSignature sr=h&sig=" + sig + "&sig=" + sig + "&se=1",
		"skn twice":            "SharedAccessSignature sr=h&sig=" + sig + "&se=1&skn=&skn=x",
		"field without equals": "SharedAccessSignature sr=h&sig=" + sig + "&se=1&skn",
		"empty field":          "SharedAccessSignature sr=h&&sig=" + sig + "&se=1",
		"broken escape in sr":  "SharedAccessSignature sr=h%2&sig=" + sig + "&se=1",
		"broken escape in sig": "SharedAccessSignature sr=h&sig=%zz&se=1",
		"broken escape in skn": "SharedAccessSignature sr=h&sig=" + sig + "&se=1&skn=%",
		"sig is not base64":    "SharedAccessSignature sr=h&sig=!!!!&se=1",
		"sig is short":         "SharedAccessSignature sr=h&sig=AAAA&se=1",
		"sig is long":          "SharedAccessSignature sr=h&sig=" + base64.StdEncoding.EncodeToString(make([]byte, 33)) + "&se=1",
		"plus turned to space": "SharedAccessSignature sr=h&sig=" + strings.ReplaceAll(sig, "%2B", " ") + "&se=1",
		"too large":            "SharedAccessSignature sr=" + strings.Repeat("h", maxTokenBytes) + "&sig=" + sig + "&se=1",
	} {
		tok, err := ParseToken(s)
		if err == nil || tok != (Token{}) {
			t.Errorf("%s: got %v, %v; want an error and no token", name, tok, err)
			continue
		}
		if strings.Contains(err.Error(), "reBgGA") || len(err.Error()) > 200 || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%s: %v", name, err)
		}
	}
	tok := token(t, "sharedaccesssignature  sr=h&sig="+sig+"&se=9999999999999999999 ")
	if tok.Expiry.Year() != 9999 {
		t.Errorf("a very late expiry is %v", tok.Expiry)
	}
}

func TestTokenExpired(t *testing.T) {
	tok := token(t, SignToken("h", []byte("k"), "", vectorExpiry))
	for _, c := range []struct {
		after, skew time.Duration
		want        bool
	}{
		{-time.Hour, 0, false}, {0, 0, false}, {time.Nanosecond, 0, true},
		{5 * time.Minute, 5 * time.Minute, false}, {5*time.Minute + 1, 5 * time.Minute, true},
	} {
		if got := tok.Expired(vectorExpiry.Add(c.after), c.skew); got != c.want {
			t.Errorf("%v after the end, %v forgiven: got %v, want %v", c.after, c.skew, got, c.want)
		}
	}
}

func TestTokenTarget(t *testing.T) {
	hosts := []string{"hub.example.com", "localhost:8443", "::1", "[fe80::1]"}
	for _, c := range []struct {
		resource, path string
		ok             bool
	}{
		{"hub.example.com", "", true},
		{"HUB.Example.COM", "", true},
		{"hub.example.com/", "", true},
		{"hub.example.com:443", "", true},
		{"hub.example.com:443/devices/d1", "/devices/d1", true},
		{"localhost", "", true},
		{"localhost:1/devices", "/devices", true},
		{"localhost:8443/devices/", "/devices", true},
		{"::1/devices/d", "/devices/d", true},
		{"[::1]:8443/devices/d", "", false},
		{"[fe80::1]:8443/devices/d", "/devices/d", true},
		{"hub.example.com/devices/D1", "/devices/D1", true},
		{"hub.example.com/devices/a%b#c?d+e", "/devices/a%b#c?d+e", true},
		{"hub.example.com/devices/..", "/devices/..", true},
		{"hub.example.com//devices", "", false},
		{"hub.example.com/devices//", "", false},
		{"hub.example.com.evil.com/devices/d1", "", false},
		{"evil.com/hub.example.com", "", false},
		{"ub.example.com", "", false},
		{"/devices/d1", "", false},
		{":443", "", false},
		{"https://hub.example.com", "", false},
		{"hub.example.com:x/devices", "", false},
	} {
		tok := token(t, SignToken(c.resource, []byte("k"), "", vectorExpiry))
		path, ok := tok.Target(hosts)
		if path != c.path || ok != c.ok {
			t.Errorf("%s: got %q, %v; want %q, %v", c.resource, path, ok, c.path, c.ok)
		}
	}
	tok := token(t, SignToken("hub.example.com", []byte("k"), "", vectorExpiry))
	if _, ok := tok.Target(nil); ok {
		t.Error("no hosts, yet a target")
	}
	if _, ok := (Token{}).Target([]string{""}); ok {
		t.Error("the zero token has a target")
	}
}

func TestTokenOpens(t *testing.T) {
	hosts := []string{"hub"}
	for _, c := range []struct {
		resource, device, module string
		want                     bool
	}{
		{"hub/devices/d1", "d1", "", true},
		{"HUB:8443/devices/d1/", "d1", "", true},
		{"hub/devices/d1", "D1", "", false},
		{"hub/devices/abc", "abcd", "", false},
		{"hub/devices/abcd", "abc", "", false},
		{"hub/devices/d1", "d1", "m", false},
		{"hub/devices/d1/modules/m", "d1", "m", true},
		{"hub/devices/d1/modules/m", "d1", "", false},
		{"hub/devices/d1/modules/m", "d1", "n", false},
		{"hub", "d1", "", false},
		{"hub/devices", "d1", "", false},
		{"hub/devices", "", "", false},
		{"other/devices/d1", "d1", "", false},
		{"hub/devices/a%b#c?", "a%b#c?", "", true},
		{"hub/devices/a%25b%23c%3F", "a%b#c?", "", true},
		{"hub/devices/a%2525b", "a%b", "", false},
		{"hub/devices/d%2Fmodules%2Fm", "d", "m", false},
	} {
		tok := token(t, SignToken(c.resource, []byte("k"), "", vectorExpiry))
		if got := tok.Opens(hosts, c.device, c.module); got != c.want {
			t.Errorf("%s opens %q %q: got %v, want %v", c.resource, c.device, c.module, got, c.want)
		}
	}
}

func TestTokenNeverPrintsItsSignature(t *testing.T) {
	key := raw(t, vectorKey)
	s := SignToken("hub/devices/d", key, "p", vectorExpiry)
	tok := token(t, s)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("token", slog.Any("token", tok))
	out := fmt.Sprintf("%v %+v %#v %s %q %v", tok, tok, tok, tok, tok, []Token{tok}) + log.String()
	b, err := base64.StdEncoding.DecodeString(vectors[0].sig)
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{escape(base64.StdEncoding.EncodeToString(tok.signature[:])), fmt.Sprint(tok.signature[:4]), string(b)} {
		if strings.Contains(out, leak) || strings.Contains(out, strings.Trim(leak, "[]")) {
			t.Errorf("the signature shows in %s", out)
		}
	}
	if want := "SharedAccessSignature sr=hub%2Fdevices%2Fd&sig=***&se=1893456000&skn=p"; tok.String() != want {
		t.Errorf("got %s", tok)
	}
}

func FuzzParseToken(f *testing.F) {
	for _, v := range vectors {
		f.Add("SharedAccessSignature sr=" + v.sr + "&sig=" + escape(v.sig) + "&se=1893456000")
		f.Add("SharedAccessSignature sig=" + v.sig + "&se=1893456000&skn=&sr=" + v.sr)
	}
	f.Add("SharedAccessSignature sr=%&sig=&se=")
	f.Add("SharedAccessSignature &&&===")
	f.Add("Bearer x")
	key := bytes.Repeat([]byte{7}, 32)
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			if tok != (Token{}) {
				t.Fatal("a token beside an error")
			}
			return
		}
		if len(s) > maxTokenBytes || tok.Resource == "" || tok.Expiry.Year() > 9999 {
			t.Fatalf("accepted %q as %v", s, tok)
		}
		if tok.Verify(key) {
			t.Fatalf("%q verifies with a key that did not sign it", s)
		}
		host, _, _ := strings.Cut(tok.Resource, "/")
		if path, ok := tok.Target([]string{host}); ok && (path != "" && path[0] != '/' || strings.HasSuffix(path, "/")) {
			t.Fatalf("%q has the target %q", s, path)
		}
		again := token(t, SignToken(tok.Resource, key, tok.Policy, tok.Expiry))
		if !again.Verify(key) || again.Resource != tok.Resource || again.Policy != tok.Policy || !again.Expiry.Equal(tok.Expiry) {
			t.Fatalf("%q signed again is %v", s, again)
		}
	})
}

func BenchmarkParseAndVerify(b *testing.B) {
	key := raw(b, vectorKey)
	s := SignToken("hub.example.com/devices/dev1", key, "", vectorExpiry)
	b.ReportAllocs()
	for b.Loop() {
		tok, err := ParseToken(s)
		if err != nil || !tok.Verify(key) {
			b.Fatal(err)
		}
	}
}
