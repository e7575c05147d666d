package author

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/scripting"
	"github.com/muster-hub/muster/scripting/scenario"
)

//go:embed all:skeleton
var skeletons embed.FS

// Skeleton returns the files of a new pattern, by their path below its folder.
// Its tests pass. name is in kebab-case.
func Skeleton(name string, scope pattern.Scope) (map[string][]byte, error) {
	if !regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`).MatchString(name) || len(name) > 64 {
		return nil, fmt.Errorf("%q is no name of a pattern: expected kebab-case, such as reboot-twice; --in says in which folder it is made", name)
	}
	if scope != pattern.ScopeDevice && scope != pattern.ScopeFleet {
		return nil, fmt.Errorf("a pattern is of kind %s or %s, not %q", pattern.ScopeDevice, pattern.ScopeFleet, scope)
	}
	words := strings.ReplaceAll(name, "-", " ")
	fill := strings.NewReplacer("{{name}}", name, "{{title}}", strings.ToUpper(words[:1])+words[1:])
	files := map[string][]byte{"muster.d.lua": Stubs()}
	for _, part := range []string{"common", string(scope)} {
		root := path.Join("skeleton", part)
		err := fs.WalkDir(skeletons, root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := skeletons.ReadFile(p)
			if err != nil {
				return err
			}
			to := fill.Replace(strings.TrimPrefix(p, root+"/"))
			files[strings.ReplaceAll(to, "NAME", name)] = []byte(fill.Replace(string(text)))
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the form of a new pattern: %w", err)
		}
	}
	return files, nil
}

// Create writes a new pattern into a folder of its name, which must not exist,
// and returns that.
func Create(in, name string, scope pattern.Scope) (string, error) {
	files, err := Skeleton(name, scope)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(in, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("%s is there already: %w", dir, fs.ErrExist)
		}
		return "", err
	}
	for file, text := range files {
		to := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return dir, err
		}
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return dir, err
		}
	}
	return dir, nil
}

// Stubs returns muster.d.lua, with the names of tests in it, too.
func Stubs() []byte { return pattern.Stubs(scenario.API()...) }

// Manifest reads what a bundle declares.
func Manifest(b *pattern.Bundle) (*pattern.Manifest, error) { return scripting.Load(b) }
