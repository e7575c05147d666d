package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The fixed fields of a container's token; see SignUpload about their names.
const (
	containerResource   = "c"      // sr: all blobs of a container
	containerPermission = "racwdl" // sp: read, add, create, write, delete, list
)

// ContainerToken lets whoever holds it read, write, list and delete the blobs
// of one container until it expires. A parsed token is only well-formed: Verify
// and Expired decide what it is worth.
type ContainerToken struct {
	ID     string // of the container as it was made: a namesake made later has another
	Expiry time.Time

	signature [sha256.Size]byte
}

// SignContainer returns the query string, with its question mark, that opens
// the container to its holder. id is at most 64 letters, digits, dashes and
// underscores.
func SignContainer(key []byte, id, container string, expiry time.Time) string {
	expiry = expiry.UTC().Truncate(time.Second)
	sum := signContainer(key, id, container, expiry)
	return formatSharedAccess(containerResource, containerPermission, id, expiry, sum)
}

func signContainer(key []byte, id, container string, expiry time.Time) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(strings.Join([]string{"muster container 1", id, expiry.Format(time.RFC3339), container}, "\n")))
	return mac.Sum(nil)
}

// ParseContainerToken reads a container's token from a decoded query. Other
// parameters are ignored, repeated ones of the token refused. Errors never
// quote the signature.
func ParseContainerToken(query url.Values) (ContainerToken, error) {
	id, expiry, sum, err := parseSharedAccess(query, containerResource, containerPermission)
	if err != nil {
		return ContainerToken{}, err
	}
	return ContainerToken{ID: id, Expiry: expiry, signature: sum}, nil
}

// formatSharedAccess is the query string that parseSharedAccess reads.
func formatSharedAccess(resource, permission, id string, expiry time.Time, sum []byte) string {
	return "?sv=" + uploadVersion + "&sr=" + resource + "&si=" + url.QueryEscape(id) + "&sp=" + permission +
		"&se=" + url.QueryEscape(expiry.Format(time.RFC3339)) + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(sum))
}

// parseSharedAccess reads the fields that tokens of blobs have in common.
func parseSharedAccess(query url.Values, resource, permission string) (id string, expiry time.Time, sum [sha256.Size]byte, err error) {
	one := map[string]string{}
	for _, name := range []string{"sv", "sr", "si", "sp", "se", "sig"} {
		list := query[name]
		if len(list) != 1 {
			return "", expiry, sum, fmt.Errorf("the query has %s %d times, expected the token as the hub gave it", name, len(list))
		}
		one[name] = list[0]
	}
	if one["sv"] != uploadVersion || one["sr"] != resource || one["sp"] != permission {
		return "", expiry, sum, errors.New("sv, sr or sp is not as the hub gave it")
	}
	if !uploadID(one["si"]) {
		return "", expiry, sum, fmt.Errorf("si is no id, expected 1 to %d letters, digits, dashes and underscores", uploadIDBytes)
	}
	expiry, err = time.Parse(time.RFC3339, one["se"])
	if err != nil || expiry.UTC().Format(time.RFC3339) != one["se"] {
		return "", expiry, sum, errors.New("se is no time such as 2026-01-31T12:00:00Z")
	}
	// Some clients take a plus sign of base64 for a space.
	signature, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(one["sig"], " ", "+"))
	if err != nil || len(signature) != sha256.Size {
		return "", expiry, sum, fmt.Errorf("sig is not base64 of %d bytes", sha256.Size)
	}
	copy(sum[:], signature)
	return one["si"], expiry.UTC(), sum, nil
}

// Verify reports whether the token was signed with the key for this container.
// It takes the same time for every signature.
func (t ContainerToken) Verify(key []byte, container string) bool {
	return len(key) > 0 && t.ID != "" && hmac.Equal(signContainer(key, t.ID, container, t.Expiry), t.signature[:])
}

// Expired reports whether the token's time has passed.
func (t ContainerToken) Expired(now time.Time) bool { return !now.Before(t.Expiry) }
