// Package hooked makes a build of Badger and ristretto that reports its file
// operations, without a changed copy of either being kept anywhere.
//
// It copies both from the module cache into a directory of the caller's, edits
// the copies and writes a go.mod beside them that puts them in the modules'
// place (the go command refuses to overlay the module cache itself). Each edit names the text that it
// expects and how often; after the edits a census counts the calls that touch
// files. So a new release of either module stops the harness with a message
// instead of leaving a file operation unseen.
package hooked

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed hooks.go.txt
var hooks []byte

// Edit replaces From by To in a source file. From must occur exactly once.
type Edit struct {
	From, To string
}

// Patch is a list of edits to one file of a module.
type Patch struct {
	Module string // module path; "" is the main module
	File   string // path inside the module
	Edits  []Edit
}

const (
	badger    = "github.com/dgraph-io/badger/v4"
	ristretto = "github.com/dgraph-io/ristretto/v2"
	importZ   = `"github.com/dgraph-io/ristretto/v2/z"`
)

// patches are the edits that make every operation of Badger on a file of its
// directory visible, except those on its LOCK file, which holds no data.
func patches() []Patch {
	addZ := Edit{`"github.com/dgraph-io/badger/v4/y"` + "\n", `"github.com/dgraph-io/badger/v4/y"` + "\n\t" + importZ + "\n"}
	return []Patch{
		{ristretto, "z/file.go", []Edit{
			{"fd, err := os.OpenFile(filename, flag, 0666)", "fd, err := PowercutOpen(filename, flag, 0666)"},
			{"fd.Truncate(int64(sz))", "PowercutTruncate(fd, int64(sz))"},
			{"return Msync(m.Data)", "return powercutMsync(m)"},
			{"m.Fd.Truncate(0)", "PowercutTruncate(m.Fd, 0)"},
			{"return os.Remove(m.Fd.Name())", "return PowercutRemove(m.Fd.Name())"},
			{"m.Fd.Truncate(maxSz)", "PowercutTruncate(m.Fd, maxSz)"},
			{"df.Sync()", "PowercutSyncDir(df)"},
		}},
		{ristretto, "z/file_linux.go", []Edit{
			{"m.Fd.Truncate(maxSz)", "PowercutTruncate(m.Fd, maxSz)"},
		}},
		{badger, "y/y.go", []Edit{
			{"flags := os.O_RDWR | os.O_CREATE | os.O_EXCL\n\tif sync {\n\t\tflags |= datasyncFileFlag\n\t}\n\treturn os.OpenFile(",
				"flags := os.O_RDWR | os.O_CREATE | os.O_EXCL\n\tif sync {\n\t\tflags |= datasyncFileFlag\n\t}\n\treturn z.PowercutOpen("},
			{"flags := os.O_RDWR | os.O_CREATE\n\tif sync {\n\t\tflags |= datasyncFileFlag\n\t}\n\treturn os.OpenFile(",
				"flags := os.O_RDWR | os.O_CREATE\n\tif sync {\n\t\tflags |= datasyncFileFlag\n\t}\n\treturn z.PowercutOpen("},
			{"flags := os.O_RDWR | os.O_CREATE | os.O_TRUNC\n\tif sync {\n\t\tflags |= datasyncFileFlag\n\t}\n\treturn os.OpenFile(",
				"flags := os.O_RDWR | os.O_CREATE | os.O_TRUNC\n\tif sync {\n\t\tflags |= datasyncFileFlag\n\t}\n\treturn z.PowercutOpen("},
		}},
		{badger, "manifest.go", []Edit{
			addZ,
			// Not a hook: rewrites of MANIFEST happen in small runs too.
			{"manifestDeletionsRewriteThreshold = 10000", "manifestDeletionsRewriteThreshold = 20"},
			{"manifestDeletionsRatio            = 10", "manifestDeletionsRatio            = 2"},
			{"fp.Truncate(truncOffset)", "z.PowercutTruncate(fp, truncOffset)"},
			{"mf.fp.Write(buf)", "z.PowercutWrite(mf.fp, buf)"},
			{"return syncFunc(mf.fp)", "return z.PowercutSync(mf.fp)"},
			{"_, err := fp.Write(buf)", "_, err := z.PowercutWrite(fp, buf)"},
			{"err := fp.Sync()", "err := z.PowercutSync(fp)"},
			{"os.Rename(rewritePath, manifestPath)", "z.PowercutRename(rewritePath, manifestPath)"},
		}},
		{badger, "dir_unix.go", []Edit{
			addZ,
			{"err = f.Sync()", "err = z.PowercutSyncDir(f)"},
		}},
		{badger, "levels.go", []Edit{
			{"\t\"os\"\n", ""},
			{"os.Remove(filename)", "z.PowercutRemove(filename)"},
		}},
		{badger, "key_registry.go", []Edit{
			addZ,
			{"if _, err = fp.Write(buf.Bytes())", "if _, err = z.PowercutWriteSync(fp, buf.Bytes())"},
			{"if _, err = kr.fp.Write(buf.Bytes())", "if _, err = z.PowercutWriteSync(kr.fp, buf.Bytes())"},
			{"os.Rename(tmpPath, filepath.Join(opt.Dir, KeyRegistryFileName))", "z.PowercutRename(tmpPath, filepath.Join(opt.Dir, KeyRegistryFileName))"},
		}},
		{badger, "table/table.go", []Edit{
			{"z.Msync(mf.Data)", "mf.Sync()"},
		}},
	}
}

// census lists, per module, the calls on files that remain unhooked, each
// with its reason. Anything else stops the harness.
var (
	fileCall = regexp.MustCompile(`\b(os\.(Remove|RemoveAll|Rename|Create|OpenFile|WriteFile|Truncate|Link|Symlink|Mkdir|MkdirAll)|[A-Za-z]*[fF][dp]\.(Truncate|Write|WriteAt|WriteString|Sync)|f\.(Truncate|Write|WriteAt|Sync)|Msync|msync|Fdatasync|Fsync|Fallocate|Ftruncate)\(`)
	leftOut  = map[string]map[string]int{
		ristretto + "/z": {
			"buffer.go":     2, // spill files in a temporary directory, no data
			"mmap.go":       2, // the definition of Msync and its call of msync
			"mmap_linux.go": 2, // msync itself: only ever reached through MmapFile.Sync
		},
		badger: {
			"dir_unix.go": 2, // the LOCK file: who holds the directory, no data
			"db.go":       1, // MkdirAll: an image always has the directories
			"memtable.go": 1, // removes a log that could not be given its header
			"manifest.go": 1, // syncFunc, which addChanges no longer calls
		},
		badger + "/y": {
			"y.go": 1, // OpenExistingFile: never creates or truncates
		},
		badger + "/table": {},
		badger + "/skl":   {},
		badger + "/trie":  {},
	}
	// otherSystems are files that a Linux build does not contain.
	otherSystems = regexp.MustCompile(`(_(test|aix|plan9|windows|darwin|js|wasip1|other|nosys|wasm|default)|mmap_unix)\.go$`)
)

// Prepare writes hooked copies of both modules below dir and returns the path
// of the file for the go command's -modfile flag. The main module is in root.
func Prepare(root, dir string) (modfile string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	mods := map[string]string{}
	var replaces []string
	for _, m := range []string{badger, ristretto} {
		from, err := moduleDir(root, m)
		if err != nil {
			return "", err
		}
		mods[m] = filepath.Join(dir, filepath.Base(filepath.Dir(m)))
		if err := copyModule(from, mods[m]); err != nil {
			return "", fmt.Errorf("copy of %s: %w", m, err)
		}
		replaces = append(replaces, "-replace="+m+"="+mods[m])
	}
	for _, p := range patches() {
		path := filepath.Join(mods[p.Module], filepath.FromSlash(p.File))
		if err := patchFile(path, path, p); err != nil {
			return "", err
		}
	}
	if err := count(mods); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(mods[ristretto], "z", "powercut.go"), hooks, 0o644); err != nil {
		return "", err
	}
	return writeModfile(root, dir, replaces)
}

// copyModule copies what a build needs of a module.
func copyModule(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		switch ext := filepath.Ext(path); {
		case strings.HasSuffix(path, "_test.go"):
			return nil
		case ext != ".go" && ext != ".s" && ext != ".mod" && ext != ".sum":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
}

// patchFile makes the edits of p in the file from and writes the result to to.
func patchFile(from, to string, p Patch) error {
	src, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("source to patch: %w", err)
	}
	text, err := apply(string(src), p)
	if err != nil {
		return err
	}
	return os.WriteFile(to, []byte(text), 0o644)
}

// writeModfile makes a go.mod in dir that differs from root's in replaces.
func writeModfile(root, dir string, replaces []string) (string, error) {
	path := filepath.Join(dir, "go.mod")
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return "", err
		}
	}
	args := append([]string{"mod", "edit"}, replaces...)
	if out, err := exec.Command("go", append(args, path)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go mod edit: %w: %s", err, out)
	}
	return path, nil
}

// Overlay applies patches to files of the main module, say to make a variant
// that is known to be bad, and returns the path of the file for the go
// command's -overlay flag. The files themselves stay as they are.
func Overlay(root, dir string, patches []Patch) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for i, p := range patches {
		path := filepath.Join(root, filepath.FromSlash(p.File))
		out := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(p.File)))
		if err := patchFile(path, out, p); err != nil {
			return "", err
		}
		replace[path] = out
	}
	b, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o644)
}

// apply makes the edits of p in src.
func apply(src string, p Patch) (string, error) {
	for _, e := range p.Edits {
		if n := strings.Count(src, e.From); n != 1 {
			return "", fmt.Errorf("%s/%s: text to patch occurs %d times, expected once: %q; the file has changed: read it again and correct the patch", p.Module, p.File, n, e.From)
		}
		src = strings.Replace(src, e.From, e.To, 1)
	}
	return src, nil
}

// count compares the unhooked calls on files with the recorded ones.
func count(mods map[string]string) error {
	for pkg, want := range leftOut {
		mod, sub := badger, strings.TrimPrefix(pkg, badger)
		if after, ok := strings.CutPrefix(pkg, ristretto); ok {
			mod, sub = ristretto, after
		}
		dir := filepath.Join(mods[mod], filepath.FromSlash(sub))
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no sources in %s: %w", dir, err)
		}
		for _, f := range files {
			name := filepath.Base(f)
			if otherSystems.MatchString(name) {
				continue
			}
			src, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if calls := fileCall.FindAllString(string(src), -1); len(calls) != want[name] {
				return fmt.Errorf("%s/%s: %d unhooked calls on files (%v), expected %d; hook the new ones or record why they do not matter", pkg, name, len(calls), calls, want[name])
			}
		}
	}
	return nil
}

// moduleDir is where the module cache holds the required version of module.
func moduleDir(root, module string) (string, error) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", fmt.Errorf("module %s is not in the module cache: run go mod download", module)
	}
	return dir, nil
}
