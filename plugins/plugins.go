// Package plugins holds the patterns that ship inside the binary: each folder is
// a bundle with its program, its scenarios and its page.
package plugins

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
)

// A path is listed by its form, so that nothing else that lies here gets into the
// binary.
//
//go:embed */pattern.lua */lib/*.lua */test/*.lua */README.md
var files embed.FS

// Bundles returns the shipped patterns, sorted by name. What is in them belongs
// to the caller.
func Bundles() ([]*pattern.Bundle, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	list := make([]*pattern.Bundle, 0, len(names))
	for _, name := range names {
		b, err := Bundle(name)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

// Names returns the names of the shipped patterns, which are those of their
// folders, sorted.
func Names() ([]string, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, fmt.Errorf("list the shipped patterns: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Bundle returns one shipped pattern; the error is fs.ErrNotExist's for a name
// that is none.
func Bundle(name string) (*pattern.Bundle, error) {
	if name == "." || path.Base(name) != name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	b := &pattern.Bundle{Files: map[string][]byte{}}
	err := fs.WalkDir(files, name, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, p)
		b.Files[strings.TrimPrefix(p, name+"/")] = text
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the shipped pattern %q: %w", name, err)
	}
	return b, nil
}
