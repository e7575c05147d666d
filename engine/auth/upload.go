package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/url"
	"strings"
	"time"
)

// The fixed fields of an upload token. Their names are those of Azure
// Storage's shared access signatures: some SDKs drop parameters that they do
// not know, so what is Muster's own travels under names that they keep.
const (
	uploadVersion    = "2019-12-12" // sv
	uploadResource   = "b"          // sr: one blob
	uploadPermission = "cw"         // sp: create and write
	uploadIDBytes    = 64
)

// UploadToken lets whoever holds it write one blob until it expires, and
// nothing else. A parsed token is only well-formed: Verify and Expired decide
// what it is worth.
type UploadToken struct {
	ID     string // of the upload, its correlation id
	Expiry time.Time

	signature [sha256.Size]byte
}

// SignUpload returns the query string, with its question mark, that lets its
// holder write the blob. id is at most 64 letters, digits, dashes and
// underscores.
func SignUpload(key []byte, id, blob string, expiry time.Time) string {
	expiry = expiry.UTC().Truncate(time.Second)
	sum := signUpload(key, id, blob, expiry)
	return formatSharedAccess(uploadResource, uploadPermission, id, expiry, sum)
}

func signUpload(key []byte, id, blob string, expiry time.Time) []byte {
	mac := hmac.New(sha256.New, key)
	// No part but the last can hold a line break.
	mac.Write([]byte(strings.Join([]string{"muster upload 1", id, expiry.Format(time.RFC3339), blob}, "\n")))
	return mac.Sum(nil)
}

// ParseUploadToken reads an upload token from a decoded query. Other
// parameters are ignored, repeated ones of the token refused. Errors never
// quote the signature.
func ParseUploadToken(query url.Values) (UploadToken, error) {
	id, expiry, sum, err := parseSharedAccess(query, uploadResource, uploadPermission)
	if err != nil {
		return UploadToken{}, err
	}
	return UploadToken{ID: id, Expiry: expiry, signature: sum}, nil
}

func uploadID(s string) bool {
	if s == "" || len(s) > uploadIDBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Verify reports whether the token was signed with the key for this blob. It
// takes the same time for every signature.
func (t UploadToken) Verify(key []byte, blob string) bool {
	return len(key) > 0 && t.ID != "" && hmac.Equal(signUpload(key, t.ID, blob, t.Expiry), t.signature[:])
}

// Expired reports whether the token's time has passed.
func (t UploadToken) Expired(now time.Time) bool { return !now.Before(t.Expiry) }
