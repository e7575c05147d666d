package pattern

import (
	"strings"
	"testing"
)

func TestCheckVersion(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"1.2.3": "", "0.0.1": "", "2.0.0-beta.1": "", "10.20.30-rc.1": "",
		"":                      `is ""`,
		"1.2":                   `is "1.2"; expected a semantic version`,
		"v1.2.3":                "without v",
		"1.2.3+build":           `without build metadata ("+build")`,
		"01.2.3":                "expected a semantic version",
		"1.2.3 ":                "expected a semantic version",
		strings.Repeat("1", 80): "at most 64",
		"1.2.3/../../etc":       "expected a semantic version",
	} {
		switch err := CheckVersion(text); {
		case err == nil && want != "":
			t.Errorf("%q is taken", text)
		case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %q, want %q", text, err, want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	// In order: each comes before all behind it.
	ordered := []string{"no version", "0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta", "1.0.0", "1.0.1", "1.2", "1.10.0", "v2"}
	for i, a := range ordered {
		for k, b := range ordered {
			want := 0
			if i < k {
				want = -1
			} else if i > k {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("%q and %q: got %d, want %d", a, b, got, want)
			}
		}
	}
	if CompareVersions("1.2", "v1.2.0") != 0 || CompareVersions("1.2.0+a", "1.2.0+b") != 0 {
		t.Error("versions that mean the same are not equal")
	}
	if CheckReported("1.2") != nil || CheckReported("no") == nil {
		t.Error("what devices report is not told from what is no version")
	}
}

func TestSatisfies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version, versions string
		want              bool
		wrong             string
	}{
		{"1.2.3", "^1.2", true, ""},
		{"2.0.0", "^1.2", false, ""},
		{"1.2.9", "~1.2.3", true, ""},
		{"1.3.0", "~1.2.3", false, ""},
		{"2.9.0", ">=1.2, <3", true, ""},
		{"3.1.0", "1.x || 3.x", true, ""},
		{"2.0.0", "1.x || 3.x", false, ""},
		{"1.2", "*", true, ""},
		{"2.0.0-beta.1", ">=1.0", false, ""},
		{"2.0.0-beta.1", ">=2.0.0-alpha", true, ""},
		{"one", "*", false, `"one" is no version`},
		{"1.2.3", "about 1", false, "no range"},
		{"1.2.3", "", false, "no range"},
		{"1.2.3", strings.Repeat("1.x || ", 100), false, "at most 256"},
	} {
		got, err := Satisfies(c.version, c.versions)
		if got != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s in %q: got %t and %v, want %t and %q", c.version, c.versions, got, err, c.want, c.wrong)
		}
	}
}
