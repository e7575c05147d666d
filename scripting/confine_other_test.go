//go:build !linux

package scripting

import (
	"errors"
	"io"
)

func probe(io.Writer) error { return errors.New("only on Linux") }

func parent(io.Writer) error { return errors.New("only on Linux") }
