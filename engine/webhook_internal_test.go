package engine

import (
	"encoding/base64"
	"testing"
	"time"
)

// The example of the Standard Webhooks documentation and libraries.
func TestWebhookSignature(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := signWebhook(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, expected %s", got, want)
	}
}

func TestWebhookBackOff(t *testing.T) {
	for n, most := range map[int]time.Duration{1: time.Second, 3: 4 * time.Second, 60: webhookLongest} {
		if d := webhookBackOff(n, 0); d > most || d < most/2 {
			t.Errorf("attempt %d: %s, expected %s to %s", n, d, most/2, most)
		}
	}
	if d := webhookBackOff(1, time.Hour); d != webhookLongest {
		t.Errorf("an hour asked: %s", d)
	}
}
