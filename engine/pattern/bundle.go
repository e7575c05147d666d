package pattern

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
)

// MainFile is the file of a bundle whose value is pattern{...}.
const MainFile = "pattern.lua"

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

// Signature is an ed25519 signature of a bundle's hash, as it lies beside the
// bundle in the file pattern.sig (JSON), which is no part of the bundle.
type Signature struct {
	Key       string `json:"key"`       // the public key, base64
	Signature string `json:"signature"` // base64
}
