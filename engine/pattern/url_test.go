package pattern_test

import (
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/pattern"
)

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://a.example": "", "HTTPS://a.example:8443/x?y=1": "", "https://[2001:db8::1]/": "",
		"http://a.example/": "only https", "HTTP://a.example/": "only https", "http:": "only https",
		"": "no URL", "a.example/x": "no URL", "ftp://a.example": "no URL", "https://": "no URL", "https:///x": "no URL", "https://:443/": "no URL", "https://a b/": "no URL",
		"https://u:p@a.example/": "user",
	} {
		err := pattern.CheckURL(text)
		if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
