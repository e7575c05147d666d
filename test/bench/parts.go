package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// benchPart measures something on a hub that nobody else uses.
type benchPart func(ctx context.Context, h *hub, stdout io.Writer) error

// runParts runs those parts of known that were asked for, in the order of known,
// each on a hub of its own.
func runParts(ctx context.Context, o hubOptions, known, asked []string, run map[string]benchPart, stdout io.Writer) error {
	for _, p := range asked {
		if run[p] == nil {
			return fmt.Errorf("part %q is not known, expected some of %s", p, strings.Join(known, ","))
		}
	}
	for _, p := range known {
		if slices.Contains(asked, p) {
			if err := runPart(ctx, o, p, run[p], stdout); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return nil
}

func runPart(ctx context.Context, o hubOptions, name string, run benchPart, stdout io.Writer) error {
	h, clean, err := newHub(o)
	if err != nil {
		return err
	}
	defer clean()
	defer func() { _ = h.signal(syscall.SIGKILL) }() // the data is thrown away
	fmt.Fprintf(stdout, "\n%s\nmachine: %s\n", name, machine(filepath.Dir(h.data)))
	return run(ctx, h, stdout)
}
