package auth

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
)

// A shared access key's length in bytes, before base64.
const (
	minKeyBytes = 16
	maxKeyBytes = 64
	newKeyBytes = 32
)

const redacted = "***"

// Secret is a text that must not reach a log, an error or a JSON answer by
// accident: fmt, slog and encoding/json all write "***". Reveal gives the text
// to the few places that hand it out or seal it. The methods do not help a
// Secret in an unexported struct field, which fmt reads by reflection.
type Secret string

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "***".
func (Secret) String() string { return redacted }

// GoString returns "***".
func (Secret) GoString() string { return redacted }

// Format writes "***" for every verb; without it a wrong verb such as %d would
// print the text.
func (Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, redacted) // fmt's own buffer: cannot fail
}

// LogValue returns "***".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "***". Records that keep a secret seal what Reveal gives.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Bytes decodes a shared access key from base64. The error never holds the text.
func (s Secret) Bytes() ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(string(s))
	if err != nil {
		return nil, fmt.Errorf("the key is not base64; expected base64 of %d to %d bytes with padding", minKeyBytes, maxKeyBytes)
	}
	return b, nil
}

// NewKey makes a shared access key: 32 random bytes in base64.
func NewKey() Secret {
	b := make([]byte, newKeyBytes)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return Secret(base64.StdEncoding.EncodeToString(b))
}

// CheckKey reports why s cannot be a shared access key: it must be padded
// base64 of 16 to 64 bytes. The error never holds the key.
func CheckKey(s string) error {
	if len(s) > base64.StdEncoding.EncodedLen(maxKeyBytes) {
		return fmt.Errorf("the key has %d characters; expected base64 of %d to %d bytes", len(s), minKeyBytes, maxKeyBytes)
	}
	b, err := Secret(s).Bytes()
	if err != nil {
		return err
	}
	if len(b) < minKeyBytes || len(b) > maxKeyBytes {
		return fmt.Errorf("the key has %d bytes; expected base64 of %d to %d bytes", len(b), minKeyBytes, maxKeyBytes)
	}
	return nil
}
