package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"
)

// Lines as they are found in logs, with what must go and what must stay.
func TestRedact(t *testing.T) {
	t.Parallel()
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcde~"))
	long := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("0123456789abcde~", 4)))
	for _, test := range []struct{ line, gone, stays string }{
		{`msg="refused" username="HostName=h;DeviceId=d;SharedAccessKey=` + key + `"`, key, "DeviceId=d"},
		{`SharedAccessSignature sr=h%2Fdevices%2Fd&sig=` + url.QueryEscape(key) + `&se=1700000000&skn=service`, url.QueryEscape(key), "se=1700000000"},
		{`GET /x?sharedaccesskey%3D` + url.QueryEscape(key), url.QueryEscape(key), "GET /x"},
		{`Authorization: Bearer s3cr3t-t0ken`, "s3cr3t-t0ken", "Authorization"},
		{`Authorization: Basic dXNlcjpwYXNz`, "dXNlcjpwYXNz", "Basic"},
		{`{"symmetricKey":{"primaryKey":"short","secondaryKey":"also \"short"},"etag":"x"}`, "short", `"etag":"x"`},
		{`{"webhookSecret": "abc", "secretFile":"/etc/x", "name":"n"}`, "abc", `"name":"n"`},
		{`{"metrics-token-file":"/etc/x","backup-passphrase-file":""}`, "/etc/x", `"backup-passphrase-file":""`},
		{`dial https://user:pa55word@example.net/path`, "pa55word", "example.net/path"},
		{`post https://example.net/in?token=abcdef&x=1`, "abcdef", "x=1"},
		{`whsec_AJW2mLOxhUf8oNR1jS4SaWCrK71TJZuWigB6qRQb1l8= is the secret`, "AJW2mLOx", "is the secret"},
		{"before\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\nafter", "MHcCAQEE", "after"},
		{"a key " + key + " alone", key, "alone"},
		{"a longer key " + long + " alone", long, "alone"},
		{"password=hunter2; more", "hunter2", "more"},
		{"ca_sha256=76:06:56:8A:12:24 blobs/" + strings.Repeat("0a", 32), "\x00", "blobs/" + strings.Repeat("0a", 32)},
		{"goroutine 12 [select]: github.com/muster-hub/muster/storage.(*committer).run(0xc000123456)", "\x00", "storage.(*committer).run(0xc000123456)"},
		{`muster_sessions{token="x"} 1`, "\x00", "muster_sessions"},
	} {
		got := string(newRedactor().clean([]byte(test.line)))
		if strings.Contains(got, test.gone) || !strings.Contains(got, test.stays) {
			t.Errorf("%s\nbecame %s\nwant it without %q and with %q", test.line, got, test.gone, test.stays)
		}
	}
}

// Whatever surrounds a secret that the redactor knows, none of its forms stays.
func FuzzRedactKnown(f *testing.F) {
	f.Add("before ", "Pl4nted-secret", " after")
	f.Add("x=", "a+b/c%20d==", "&y")
	f.Add("sig=", "0123456789", "")
	f.Fuzz(func(t *testing.T, before, secret, after string) {
		secret = strings.TrimSpace(secret)
		if len(secret) < 8 || len(secret) > 1000 || strings.Contains(redacted, secret) || strings.Contains(secret, "redacted") {
			return
		}
		r := newRedactor()
		r.learn([]byte(secret))
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)), url.QueryEscape(secret)} {
			// Alone in its line: what surrounds it could complete another occurrence.
			got := r.clean([]byte(before + "\n" + form + "\n" + after))
			for line := range bytes.Lines(got) {
				if string(bytes.TrimSpace(line)) == form {
					t.Fatalf("%q stays of %q", form, secret)
				}
			}
			if !bytes.Contains(got, []byte(redacted)) {
				t.Fatalf("%q of %q was not replaced: %q", form, secret, got)
			}
		}
	})
}
