package pattern

import "errors"

// CompareVersions orders semantic versions: -1, 0 or 1. One that is none comes
// before all that are.
func CompareVersions(a, b string) int { return 0 }

// CheckVersion says what is wrong with a semantic version: "1.2.3", without a v,
// perhaps with a pre-release and build; nil: nothing.
func CheckVersion(version string) error { return nil }

// Satisfies reports whether a version is in a range, such as "^1.2",
// ">=1.2, <3" or "1.x || 3.x". The error says which of the two is none.
func Satisfies(version, versions string) (bool, error) { return false, errors.New("not yet") }
