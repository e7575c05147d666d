package device

import (
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
)

func TestMessageTopic(t *testing.T) {
	m := engine.QueuedMessage{DeviceboundMessage: engine.DeviceboundMessage{
		MessageID: "abc", ContentType: "application/json", ContentEncoding: "utf-8", Ack: "full",
		Expires: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Properties: []engine.Property{{Name: "k", Value: "a b+c"}},
	}}
	const want = "devices/d/messages/devicebound/%24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound&%24.mid=abc&%24.ct=application%2Fjson&%24.ce=utf-8&%24.exp=2026-01-01T00%3A00%3A00.0000000Z&iothub-ack=full&k=a%20b%2Bc"
	if got := messageTopic("d", m); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
