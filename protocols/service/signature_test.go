package service

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// signature makes a token by hand, from sr as it stands.
func signature(sr string, key []byte, policy string, expiry time.Time, order string) string {
	se := strconv.FormatInt(expiry.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(sr + "\n" + se))
	fields := map[string]string{
		"sr": sr, "se": se, "skn": policy,
		"sig": url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))),
	}
	var parts []string
	for name := range strings.SplitSeq(order, ",") {
		parts = append(parts, name+"="+fields[name])
	}
	return "SharedAccessSignature " + strings.Join(parts, "&")
}
