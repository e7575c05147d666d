package author

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
)

// ErrNoPattern says that a folder holds no pattern.
var ErrNoPattern = errors.New("there is no pattern.lua in it")

// Read reads a pattern from its folder, or from an archive or one file of Lua,
// and its signature; nil: it has none. Of a folder the pattern's own files are
// taken: pattern.lua, README.md, and what is called *.lua in lib and test.
func Read(path string) (*pattern.Bundle, *pattern.Signature, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		data, err := readFile(path, pattern.MaxArchive)
		if err != nil {
			return nil, nil, err
		}
		return pattern.ReadArchive(filepath.Base(path), data)
	}
	if _, err := os.Stat(filepath.Join(path, pattern.MainFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", path, ErrNoPattern)
	}
	b := &pattern.Bundle{Files: map[string][]byte{}}
	err = walk(path, func(name, file string) error {
		data, err := readFile(file, pattern.MaxFile)
		if err != nil {
			return err
		}
		b.Files[name] = data
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if err := b.Check(); err != nil {
		return nil, nil, err
	}
	text, err := readFile(filepath.Join(path, pattern.SignatureFile), pattern.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	s, err := pattern.ParseSignature(text)
	return b, s, err
}

// walk calls f for each file of a pattern's folder, with its path in the bundle.
func walk(dir string, f func(name, file string) error) error {
	files := 0
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		top, _, below := strings.Cut(name, "/")
		switch {
		case name == ".":
			return nil
		case d.IsDir():
			if top != "lib" && top != "test" || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		case name == pattern.MainFile, name == "README.md", below && strings.HasSuffix(name, ".lua") && !strings.HasPrefix(d.Name(), "."):
		default:
			return nil
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no file", file)
		}
		if files++; files > pattern.MaxFiles {
			return fmt.Errorf("%s has more than %d files", dir, pattern.MaxFiles)
		}
		return f(name, file)
	})
}

// readFile reads a file that is not larger than it may be.
func readFile(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > most:
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return data, nil
}

// Neighbours returns a function that finds other patterns in the folders beside
// one: a test names them.
func Neighbours(dir string) func(name string) (*pattern.Bundle, error) {
	return func(name string) (*pattern.Bundle, error) {
		if name == "" || filepath.Base(name) != name || strings.HasPrefix(name, ".") {
			return nil, fmt.Errorf("%q is no name of a pattern", name)
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		b, _, err := Read(filepath.Join(filepath.Dir(abs), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no folder %q beside this pattern's; a test may give t:pattern a function that stands for it", name)
		}
		return b, err
	}
}
