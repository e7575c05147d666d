package device

import (
	"bytes"
	"testing"
)

func TestHTTPPath(t *testing.T) {
	for _, c := range []struct {
		path, device, module string
		ok                   bool
	}{
		{"/devices/d/messages/events", "d", "", true},
		{"/devices/d%2Fe/messages/deviceBound/tok", "d/e", "", true},
		{"/devices/d/modules/m//messages/events/", "d", "m", true},
		{"/devices/d/modules/m", "", "", false},
		{"/devices/d/messages", "", "", false},
		{"/devices/d/files", "d", "", true},
		{"/devices/d/files/notifications/c", "d", "", true},
		{"/devices/d/modules/m//files/", "d", "m", true},
		{"/devices/d/modules/files", "", "", false},
		{"/devices/messages/events", "", "", false},
		{"/devices/%zz/messages/events", "", "", false},
	} {
		p, ok := parseHTTPPath(c.path)
		if ok != c.ok || ok && (p.id.DeviceID != c.device || p.id.ModuleID != c.module) {
			t.Errorf("%s: %+v %v", c.path, p, ok)
		}
	}
}

func FuzzParseBatch(f *testing.F) {
	f.Add([]byte(`[{"body":"aGk="},{"body":"hi","base64Encoded":false,"properties":{"iothub-app-k":"v"}}]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseBatch(b)
		if err == nil && (len(list) == 0 || len(list) > batchMessages) {
			t.Fatal("a batch out of bounds was taken")
		}
	})
}

func TestParseBatch(t *testing.T) {
	list, err := parseBatch([]byte(`[{"body":"aGk="},{"body":"ho","base64Encoded":false,"properties":{"iothub-app-K":"v","iothub-messageid":"1"}}]`))
	if err != nil || len(list) != 2 || !bytes.Equal(list[0].Body, []byte("hi")) || !bytes.Equal(list[1].Body, []byte("ho")) ||
		len(list[1].Properties) != 1 || list[1].Properties[0].Name != "K" || len(list[1].System) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	if _, err := parseBatch([]byte(`[{"body":"not base64"}]`)); err == nil {
		t.Fatal("a body that is no base64 was taken")
	}
	if _, err := parseBatch([]byte("[{\"body\":\"a\xffb\",\"base64Encoded\":false}]")); err == nil {
		t.Fatal("a body that is no UTF-8 was taken, and would be stored changed")
	}
}
