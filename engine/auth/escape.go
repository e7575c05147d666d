package auth

import (
	"errors"
	"net/url"
	"strings"
)

var errEscape = errors.New("broken percent escape")

// unescape decodes percent escapes in either case and leaves a plus sign alone.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	u, err := url.PathUnescape(s)
	if err != nil {
		return "", errEscape // the original quotes the text
	}
	return u, nil
}

// escape encodes every byte but ASCII letters, digits and "-_.~" as %XX.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '_', c == '.', c == '~':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

// withoutPort cuts ":8443" off a host name or a bracketed IPv6 address.
func withoutPort(host string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.Trim(host[i+1:], "0123456789") != "" {
		return host
	}
	if strings.IndexByte(host, ':') < i && !strings.HasSuffix(host[:i], "]") {
		return host // a bare IPv6 address
	}
	return host[:i]
}

// clip bounds what an error quotes.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
