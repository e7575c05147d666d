package pattern

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Bounds of versions and ranges.
const (
	versionMost  = 64  // bytes
	versionsMost = 256 // bytes of a range
)

// CheckVersion says what is wrong with the version of a pattern, a semantic one
// such as "1.2.3" or "2.0.0-beta.1"; nil: nothing. Build metadata is refused,
// since versions that differ in it alone have no order.
func CheckVersion(version string) error {
	const expected = `expected a semantic version such as "1.2.0"`
	if len(version) > versionMost {
		return fmt.Errorf("has %d bytes; expected at most %d", len(version), versionMost)
	}
	v, err := semver.StrictNewVersion(version)
	switch {
	case err != nil && strings.HasPrefix(version, "v"):
		return fmt.Errorf("is %s; %s, without v", quote(version), expected)
	case err != nil:
		return fmt.Errorf("is %s; %s", quote(version), expected)
	case v.Metadata() != "":
		return fmt.Errorf("is %s; expected it without build metadata (%s)", quote(version), quote("+"+v.Metadata()))
	}
	return nil
}

// CheckReported says that a text is no version as devices report them, perhaps
// short or with a v: "1.2" and "v1.2.0" both are 1.2.0. nil: it is one.
func CheckReported(version string) error {
	_, err := looseVersion(version)
	return err
}

// CompareVersions orders two versions as [CheckReported] takes them: -1, 0 or 1.
// A text that is none comes before all that are.
func CompareVersions(a, b string) int {
	first, err := looseVersion(a)
	second, err2 := looseVersion(b)
	switch {
	case err != nil && err2 != nil:
		return 0
	case err != nil:
		return -1
	case err2 != nil:
		return 1
	}
	return first.Compare(second)
}

// Satisfies reports whether a version, as [CheckReported] takes it, is in a
// range, such as "^1.2", "~1.2.3", ">=1.2, <3" or "1.x || 3.x". A pre-release is
// only in a range that names one. The error says which of the two is none.
func Satisfies(version, versions string) (bool, error) {
	v, err := looseVersion(version)
	if err != nil {
		return false, err
	}
	if len(versions) > versionsMost {
		return false, fmt.Errorf("the range has %d bytes; expected at most %d", len(versions), versionsMost)
	}
	c, err := semver.NewConstraint(versions)
	if err != nil {
		return false, fmt.Errorf(`%s is no range of versions; expected one such as "^1.2" or ">=1.2, <3"`, quote(versions))
	}
	return c.Check(v), nil
}

func looseVersion(text string) (*semver.Version, error) {
	if len(text) <= versionMost {
		if v, err := semver.NewVersion(text); err == nil {
			return v, nil
		}
	}
	return nil, fmt.Errorf(`%s is no version; expected one such as "1.2.0"`, quote(text))
}
