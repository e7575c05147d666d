// Package auth says who a token or key is and what its holder may do:
// permissions, principals, shared access policies, shared access signatures
// and connection strings in IoT Hub's forms.
//
// The package is pure: no I/O and no clock. Nothing here decides which
// operation needs which permission; that is the engine's table. All values are
// immutable and safe for concurrent use.
package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	scheme        = "SharedAccessSignature"
	maxTokenBytes = 4 << 10
	// Later expiries are kept as this one, the end of year 9999, the last that
	// RFC 3339 can write.
	maxExpiry = 253402300799
)

// Token is a shared access signature as a client presented it. A parsed token
// is only well-formed: Verify, Expired and Target or Opens decide what it is
// worth.
type Token struct {
	Resource string    // what it is for, percent-decoded once: "hub.example.com/devices/d1"
	Policy   string    // the policy that signed it, decoded; "" for a device's or module's own key
	Expiry   time.Time // UTC, whole seconds

	resource  string // as transmitted, which is what was signed
	expiry    string // as transmitted
	signature [sha256.Size]byte
}

// ParseToken reads "SharedAccessSignature sr=..&sig=..&se=..[&skn=..]" with the
// fields in any order; unknown fields are ignored, repeated ones refused. A
// plus sign is never a space, and escapes may be in either case. A token over
// 4 KiB is refused. Errors never quote the signature.
func ParseToken(s string) (Token, error) {
	var t Token
	if len(s) > maxTokenBytes {
		return t, fmt.Errorf("the token has %d bytes; expected at most %d", len(s), maxTokenBytes)
	}
	if len(s) <= len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) || s[len(scheme)] != ' ' {
		return t, errors.New(`the token does not start with "SharedAccessSignature "; expected SharedAccessSignature sr=..&sig=..&se=..[&skn=..]`)
	}
	var f fields
	for field := range strings.SplitSeq(strings.Trim(s[len(scheme):], " "), "&") {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return t, errors.New(`the token has a field without "="; expected sr=..&sig=..&se=..[&skn=..]`)
		}
		if err := f.set(name, value); err != nil {
			return t, err
		}
	}
	return f.token()
}

// fields collects a token's fields; a nil one was not there.
type fields struct{ sr, sig, se, skn *string }

func (f *fields) set(name, value string) error {
	var p **string
	switch name {
	case "sr":
		p = &f.sr
	case "sig":
		p = &f.sig
	case "se":
		p = &f.se
	case "skn":
		p = &f.skn
	default:
		return nil
	}
	if *p != nil {
		return fmt.Errorf("the token has the field %s twice; expected it once", name)
	}
	*p = &value
	return nil
}

func (f *fields) token() (Token, error) {
	var t Token
	if f.sr == nil || f.sig == nil || f.se == nil {
		return t, errors.New("the token lacks sr, sig or se; expected all three")
	}
	t.resource, t.expiry = *f.sr, *f.se
	var err error
	if t.Resource, err = unescape(t.resource); err != nil || t.Resource == "" {
		return Token{}, errors.New("the token's sr is empty or has a broken escape; expected a percent-encoded resource such as hub.example.com%2Fdevices%2Fd1")
	}
	seconds, err := strconv.ParseUint(t.expiry, 10, 64)
	if err != nil {
		return Token{}, errors.New("the token's se is not a number; expected the expiry in seconds since 1970")
	}
	t.Expiry = time.Unix(int64(min(seconds, maxExpiry)), 0).UTC()
	if f.skn != nil {
		if t.Policy, err = unescape(*f.skn); err != nil {
			return Token{}, errors.New("the token's skn has a broken escape; expected a percent-encoded policy name")
		}
	}
	text, err := unescape(*f.sig)
	if err != nil {
		return Token{}, errors.New("the token's sig has a broken escape; expected percent-encoded base64")
	}
	sum, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(sum) != sha256.Size {
		return Token{}, fmt.Errorf("the token's sig is not base64 of %d bytes; expected an HMAC-SHA256", sha256.Size)
	}
	copy(t.signature[:], sum)
	return t, nil
}

// Verify reports whether key, in its raw form, signed the token. The signature
// covers sr and se exactly as they were transmitted: each client signs its own
// spelling of the escapes. The time taken does not depend on how much of the
// signature is right. An empty key verifies nothing.
func (t Token) Verify(key []byte) bool {
	if len(key) == 0 || t.resource == "" {
		return false
	}
	return hmac.Equal(t.signature[:], mac(t.resource, t.expiry, key))
}

// VerifyKeys reports whether one of the keys, given in base64, signed the
// token. All are tried, so that the time does not tell which one it was. A key
// that is empty or not base64 verifies nothing.
func (t Token) VerifyKeys(keys ...Secret) bool {
	ok := false
	for _, k := range keys {
		raw, err := k.Bytes()
		if err == nil && t.Verify(raw) {
			ok = true
		}
	}
	return ok
}

// Expired reports whether the token has ended at now. skew is the difference
// between the clocks of client and hub that is forgiven.
func (t Token) Expired(now time.Time, skew time.Duration) bool {
	return now.After(t.Expiry.Add(skew))
}

// Target returns the path that the token is for when its host is one of hosts:
// "" for the whole hub, else "/devices/d1" with decoded segments. Hosts are
// compared without regard to case or port. A resource with an empty segment in
// it has no target; one slash at the end is ignored.
func (t Token) Target(hosts []string) (path string, ok bool) {
	host, path := t.Resource, ""
	if i := strings.IndexByte(t.Resource, '/'); i >= 0 {
		host, path = t.Resource[:i], strings.TrimSuffix(t.Resource[i:], "/")
	}
	host = withoutPort(host)
	known := host != "" && slices.ContainsFunc(hosts, func(h string) bool {
		return strings.EqualFold(withoutPort(h), host)
	})
	if !known || strings.Contains(path, "//") || strings.HasSuffix(path, "/") {
		return "", false
	}
	return path, true
}

// Opens reports whether the token's target is exactly this device, or this
// module when moduleID is not empty. Some clients escape the ids before they
// escape the whole resource, others do not, so an id may also be escaped once
// more. Use it for tokens signed with the device's or module's own key; a
// policy's token is judged by Target and Principal.Covers.
func (t Token) Opens(hosts []string, deviceID, moduleID string) bool {
	path, ok := t.Target(hosts)
	if !ok || deviceID == "" {
		return false
	}
	want := []string{"", "devices", deviceID}
	if moduleID != "" {
		want = append(want, "modules", moduleID)
	}
	got := strings.Split(path, "/")
	return slices.EqualFunc(got, want, func(g, w string) bool {
		if g == w {
			return true
		}
		again, err := unescape(g)
		return err == nil && again == w
	})
}

// String shows the token without its signature.
func (t Token) String() string {
	return scheme + " sr=" + t.resource + "&sig=" + redacted + "&se=" + t.expiry + "&skn=" + escape(t.Policy)
}

// GoString is String: no verb of fmt shows the signature.
func (t Token) GoString() string { return t.String() }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// SignToken makes a token for resource, such as "hub.example.com/devices/d1",
// signed with the raw key and valid to expiry (whole seconds). policy is the
// name of the policy whose key it is, or "" for a device's own key. The
// resource is percent-encoded as the SDKs do, slashes included.
func SignToken(resource string, key []byte, policy string, expiry time.Time) string {
	sr, se := escape(resource), strconv.FormatInt(expiry.Unix(), 10)
	sig := base64.StdEncoding.EncodeToString(mac(sr, se, key))
	s := scheme + " sr=" + sr + "&sig=" + escape(sig) + "&se=" + se
	if policy != "" {
		s += "&skn=" + escape(policy)
	}
	return s
}

func mac(sr, se string, key []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(sr))
	h.Write([]byte{'\n'})
	h.Write([]byte(se))
	return h.Sum(nil)
}
