package device

import (
	"strings"

	"github.com/muster-hub/muster/engine"
)

// messageTopic returns the topic of a cloud-to-device message with its
// property bag: the hub's own properties first, $.to before all, everything
// percent-encoded and nothing empty, which is what every SDK's parser takes.
func messageTopic(deviceID string, m engine.QueuedMessage) string {
	var b strings.Builder
	b.WriteString("devices/" + deviceID + "/messages/devicebound/%24.to=")
	escape(&b, "/devices/"+deviceID+"/messages/deviceBound")
	for _, p := range []struct{ key, value string }{
		{"%24.mid", m.MessageID}, {"%24.cid", m.CorrelationID}, {"%24.uid", m.UserID},
		{"%24.ct", m.ContentType}, {"%24.ce", m.ContentEncoding},
		{"%24.exp", m.Expires.UTC().Format(timestampLayout)}, {"iothub-ack", m.Ack},
	} {
		if p.value != "" {
			b.WriteString("&" + p.key + "=")
			escape(&b, p.value)
		}
	}
	for _, p := range m.Properties {
		b.WriteByte('&')
		escape(&b, p.Name)
		b.WriteByte('=')
		escape(&b, p.Value)
	}
	return b.String()
}

// escape percent-encodes all but RFC 3986's unreserved characters.
func escape(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
}
