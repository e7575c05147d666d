package author

import (
	"errors"

	"github.com/muster-hub/muster/engine/pattern"
)

// Skeleton returns the files of a new pattern, by their path below its folder.
// Its tests pass. name is in kebab-case.
func Skeleton(name string, scope pattern.Scope) (map[string][]byte, error) {
	return nil, errors.New("not yet")
}
