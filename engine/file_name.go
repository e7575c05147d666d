package engine

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The names of files are data: nothing on the hub's disk is ever called by
// one. They are checked all the same, because they become parts of URLs, are
// shown on terminals, and are what other programs name their copies by.
const (
	fileNameParts = 64
	fileNameMarks = `\%#?` // change what a URL means, on one of the ways that it takes
)

// checkFileName applies the rule for the name that a device gives a file:
// printable characters in UTF-8, parts separated by single slashes.
func checkFileName(name string, most int) error {
	switch {
	case name == "":
		return errf(CodeArgumentNull, "blobName is missing")
	case len(name) > most:
		return errf(CodeArgumentInvalid, "blobName has %d bytes, at most %d are allowed", len(name), most)
	case !utf8.ValidString(name), strings.ContainsRune(name, utf8.RuneError): // JSON's decoder puts it where bytes are no UTF-8
		return errf(CodeArgumentInvalid, "blobName is not UTF-8")
	}
	at := 0
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return errf(CodeArgumentInvalid, "blobName has the character %U at position %d, which cannot be seen; use printable characters", r, at)
		}
		if strings.ContainsRune(fileNameMarks, r) {
			return errf(CodeArgumentInvalid, `blobName has the character %q at position %d; not allowed are \ %% # and ?`, r, at)
		}
		at++
	}
	parts := strings.Split(name, "/")
	if len(parts) > fileNameParts {
		return errf(CodeArgumentInvalid, "blobName has %d parts, at most %d are allowed", len(parts), fileNameParts)
	}
	for _, part := range parts {
		switch strings.Trim(part, " ") {
		case "":
			return errf(CodeArgumentInvalid, "blobName has an empty part; begin and end it without a slash, and use single ones")
		case ".", "..":
			return errf(CodeArgumentInvalid, "blobName has the part %q, which is no name", part)
		}
	}
	return nil
}
