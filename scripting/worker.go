package scripting

import (
	"errors"
	"io"
)

// Worker is the life of a worker process: it answers what its [Pool] asks on in,
// until that ends. Before the first request it takes away from itself what it can
// do beyond reading in and writing out.
func Worker(in io.Reader, out io.Writer) error {
	return errors.New("not yet")
}
