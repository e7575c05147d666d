package engine

import (
	"errors"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// patternRecord is an installed version of a pattern. Its bundle lies in
// patternFileTable under Hash.
type patternRecord struct {
	Manifest  pattern.Manifest `json:"m"`
	Hash      string           `json:"h"`
	Bytes     int64            `json:"b"` // of the bundle's files
	Origin    PatternOrigin    `json:"o"`
	Signer    string           `json:"s,omitempty"`
	Granted   pattern.Needs    `json:"g,omitempty"`
	Enabled   bool             `json:"e,omitempty"`
	Off       bool             `json:"x,omitempty"` // an operator disabled it, so that the next start does not enable it
	Owner     jobOwner         `json:"w"`           // who enabled it last: its triggers act with their permissions
	Installed time.Time        `json:"t"`
	Updated   time.Time        `json:"u"`
	Principal string           `json:"p"` // who installed it
	Revision  uint64           `json:"n"` // the ETag's number
}

// patternName is what is known of a name, whatever its versions.
type patternName struct {
	Default string `json:"d"`           // the version that is run when none is named
	Chosen  bool   `json:"c,omitempty"` // by an operator: a newer one does not take its place
	Since   uint64 `json:"n"`           // moves with Default, for ETags
}

var (
	// patternTable: (name, version).
	patternTable = storage.NewTable("pattern", 1, storage.JSON[patternRecord]())
	// patternNameTable: (name).
	patternNameTable = storage.NewTable("pattern_name", 1, storage.JSON[patternName]())
	// patternFileTable: (hash, path), the files of bundles.
	patternFileTable = storage.NewTable("pattern_file", 1, storage.JSON[[]byte]())
	// patternKeyTable: (name), keys whose signatures are trusted.
	patternKeyTable = storage.NewTable("pattern_key", 1, storage.JSON[trustedKeyRecord]())
	// patternSecretTable: (name).
	patternSecretTable = storage.NewTable("pattern_secret", 1, storage.JSON[patternSecretRecord]())
)

// trustedKeyRecord is a stored TrustedKey.
type trustedKeyRecord struct {
	Key     []byte    `json:"k"`
	Created time.Time `json:"c"`
}

// patternSecretRecord is a stored secret, sealed under its name.
type patternSecretRecord struct {
	Sealed  []byte    `json:"s"`
	Updated time.Time `json:"u"`
	By      string    `json:"b"`
}

func patternKey(name, version string) storage.Key { return storage.Tuple(name, version) }

// defaultVersion returns the version of a pattern that is run when none is named.
func defaultVersion(r storage.Reader, name string) (patternName, error) {
	n, err := patternNameTable.Get(r, storage.Tuple(name))
	if errors.Is(err, storage.ErrNotFound) {
		return n, errf(CodePatternNotFound, "there is no pattern %q", clip(name))
	}
	return n, err
}

// pattern returns an installed version of a pattern, its default one when version
// is empty; CodePatternNotFound.
func (h *Hub) pattern(r storage.Reader, name, version string) (patternRecord, error) {
	if version == "" {
		n, err := defaultVersion(r, name)
		if err != nil {
			return patternRecord{}, err
		}
		version = n.Default
	}
	record, err := patternTable.Get(r, patternKey(name, version))
	if errors.Is(err, storage.ErrNotFound) {
		return record, errf(CodePatternNotFound, "the version %q of the pattern %q is not installed", clip(version), clip(name))
	}
	return record, err
}
