package pattern

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// MainFile is the file of a bundle whose value is pattern{...}.
	MainFile = "pattern.lua"
	// SignatureFile is the file of an archive or folder that holds its signature.
	// It is no part of the bundle.
	SignatureFile = "pattern.sig"

	filePathMost = 100 // bytes, as many as any form of archive takes
	partsMost    = 5
	pathExpected = "names of letters, digits and . _ - with / between them, such as lib/steps.lua"
)

// Bundle is a pattern's files, by their path below its folder with / between
// parts: pattern.lua, what it requires (lib/x.lua), its tests and README.md.
type Bundle struct {
	Files map[string][]byte
}

// Hash names the bundle: SHA-256 over its paths and contents, in hex.
func (b *Bundle) Hash() string {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(b.Files)) {
		for _, part := range [][]byte{[]byte(path), b.Files[path]} {
			h.Write([]byte(strconv.Itoa(len(part)) + ":"))
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Check says what is wrong with a bundle: its paths, how many files it has, how
// large they are, and whether pattern.lua is there; nil: nothing. The error is
// [rollout.Faults], whose paths are those of files.
func (b *Bundle) Check() error {
	if n := len(b.Files); n > MaxFiles {
		return fileFault("bundle", fmt.Sprintf("has %d files", n), fmt.Sprintf("at most %d", MaxFiles))
	}
	if _, have := b.Files[MainFile]; !have {
		return fileFault(MainFile, "is missing", "it: it declares the pattern")
	}
	total := 0
	taken := map[string]string{} // files and folders, by their names in small letters
	for _, path := range slices.Sorted(maps.Keys(b.Files)) {
		data := b.Files[path]
		if err := CheckPath(path); err != nil {
			return err
		}
		if path == SignatureFile {
			return fileFault(path, "is among the files", "it beside them")
		}
		for i := range len(path) + 1 {
			if i < len(path) && path[i] != '/' {
				continue
			}
			part, file := path[:i], i == len(path)
			other, have := taken[strings.ToLower(part)]
			if have && (file || other != part+"/") {
				return fileFault(path, "and "+quote(other)+" are the same where letters have no case, or one is a folder", "names that differ")
			}
			if !file {
				part += "/"
			}
			taken[strings.ToLower(path[:i])] = part
		}
		if len(data) > MaxFile {
			return fileFault(path, fmt.Sprintf("has %d bytes", len(data)), fmt.Sprintf("at most %d", MaxFile))
		}
		if strings.HasSuffix(path, ".lua") && (!utf8.Valid(data) || strings.Contains(string(data), "\x00")) {
			return fileFault(path, "is no text", "Lua in UTF-8")
		}
		total += len(data)
	}
	if total > MaxBundle {
		return fileFault("bundle", fmt.Sprintf("has %d bytes", total), fmt.Sprintf("at most %d", MaxBundle))
	}
	return nil
}

// CheckPath says what is wrong with the path of a bundle's file; nil: nothing.
// What is hidden, leads elsewhere, or means different files on different systems
// is refused. The error is [rollout.Faults].
func CheckPath(path string) error {
	if reason := badPath(path, partsMost); reason != "" {
		return fileFault(path, reason, pathExpected)
	}
	return nil
}

func badPath(path string, parts int) string {
	switch {
	case path == "":
		return "has no name"
	case len(path) > filePathMost:
		return fmt.Sprintf("is longer than %d bytes", filePathMost)
	case path[0] == '/':
		return "does not lie in the pattern's folder"
	case strings.Count(path, "/") >= parts:
		return fmt.Sprintf("lies more than %d folders deep", parts-1)
	}
	for part := range strings.SplitSeq(path, "/") {
		for i := range len(part) {
			if c := part[i]; (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
				return "has a character that not every system takes"
			}
		}
		switch {
		case part == "..":
			return "does not lie in the pattern's folder"
		case part == "" || part[len(part)-1] == '.':
			return "is no path of a file"
		case part[0] == '.':
			return "is hidden; leave it out"
		}
	}
	return ""
}
