package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// redacted stands where a secret was.
const redacted = "[redacted]"

// redactor takes secrets out of text: those that it was told, in the encodings
// in which they turn up, and whatever looks like one.
type redactor struct {
	known    []string // longest first
	patterns []expression
}

type expression struct {
	re   *regexp.Regexp
	with string
}

func newRedactor() *redactor {
	p := func(re, with string) expression { return expression{regexp.MustCompile(re), with} }
	return &redactor{patterns: []expression{
		p(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`, redacted),
		p(`(?i)(SharedAccessKey|SharedAccessKeyValue)(=|%3D)[^;&\s"'\\]+`, "${1}${2}"+redacted),
		p(`(?i)\b(sig|signature|password|passwd|passphrase|secret|token|access_token|api_?key)(=|%3D)[^&;\s"'\\]+`, "${1}${2}"+redacted),
		p(`(?i)\b(bearer|basic)(\s+|%20|\+)[A-Za-z0-9+/=._~%-]{6,}`, "${1}${2}"+redacted),
		p(`(?i)("[a-z_-]*(?:primaryKey|secondaryKey|sharedAccessKey|password|passphrase|secret|token|authorization|credential|privateKey|apiKey)[a-z_-]*"\s*:\s*)"(?:[^"\\]|\\.)+"`, "${1}\""+redacted+"\""),
		p(`([a-z][a-z0-9+.-]*://)[^/\s@"'\\]+@`, "${1}"+redacted+"@"),
		p(`whsec_[A-Za-z0-9+/=_-]+`, redacted),
		// Keys of devices and policies are base64 of 32 or 64 bytes.
		p(`[A-Za-z0-9+/_-]{42,}(?:={1,2}|(?:%3[Dd]){1,2})`, redacted),
	}}
}

// learn adds a secret, with its forms in base64, hexadecimal and URLs. Short
// ones are left out: they would be found everywhere.
func (r *redactor) learn(secret []byte) {
	secret = bytes.TrimSpace(secret)
	const least = 8
	if len(secret) < least {
		return
	}
	forms := []string{string(secret)}
	if raw, err := base64.StdEncoding.DecodeString(string(secret)); err == nil && len(raw) >= least {
		forms = append(forms, string(raw), hex.EncodeToString(raw))
	}
	for _, f := range slices.Clone(forms) {
		b := []byte(f)
		forms = append(forms, hex.EncodeToString(b), url.QueryEscape(f), url.PathEscape(f))
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			text := strings.TrimRight(e.EncodeToString(b), "=")
			forms = append(forms, text, url.QueryEscape(text))
		}
	}
	r.known = append(r.known, forms...)
	slices.SortFunc(r.known, func(a, b string) int { return len(b) - len(a) })
	r.known = slices.Compact(r.known)
}

// learnFile adds what a file of secrets holds: each line, and the whole; of
// PEM also the bytes.
func (r *redactor) learnFile(name string) {
	text, err := os.ReadFile(name)
	if err != nil || len(text) > 1<<16 {
		return // not there, or not for us: then it can't have come into our hands
	}
	r.learn(text)
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("-----")) {
			r.learn(line)
		}
	}
	if block, _ := pem.Decode(text); block != nil {
		r.learn(block.Bytes)
	}
}

// learnData adds the secrets that lie as files in a data directory.
func (r *redactor) learnData(dir string) {
	r.learnFile(filepath.Join(dir, "master.key"))
	keys, err := filepath.Glob(filepath.Join(dir, "tls", "*.key"))
	if err == nil {
		for _, k := range keys {
			r.learnFile(k)
		}
	}
	for _, name := range []string{"server-ecdsa.pem", "server-rsa.pem"} {
		r.learnFile(filepath.Join(dir, "tls", name))
	}
	if accounts, err := filepath.Glob(filepath.Join(dir, "tls", "acme", "*")); err == nil {
		for _, a := range accounts {
			r.learnFile(a)
		}
	}
}

// clean returns text without secrets.
func (r *redactor) clean(text []byte) []byte {
	for _, k := range r.known {
		text = bytes.ReplaceAll(text, []byte(k), []byte(redacted))
	}
	for _, p := range r.patterns {
		text = p.re.ReplaceAll(text, []byte(p.with))
	}
	return text
}
