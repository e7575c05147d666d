package engine

import (
	"errors"
	"strconv"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// patternRecord is an installed version of a pattern. Its files are the blob Blob.
type patternRecord struct {
	Manifest  pattern.Manifest `json:"m"`
	Hash      string           `json:"h"` // of the bundle
	Blob      string           `json:"f"`
	Bytes     int64            `json:"b"` // of the blob
	Origin    PatternOrigin    `json:"o"`
	Signer    string           `json:"s,omitempty"`
	Granted   pattern.Needs    `json:"g,omitempty"`
	Enabled   bool             `json:"e,omitempty"`
	Off       bool             `json:"x,omitempty"` // an operator disabled it
	Owner     jobOwner         `json:"w"`           // who enabled it last: its triggers act with their permissions
	Since     uint64           `json:"a,omitempty"` // the revision with which it was enabled last
	Installed time.Time        `json:"t"`
	Updated   time.Time        `json:"u"`
	Principal string           `json:"p"` // who installed it
	Revision  uint64           `json:"n"` // the ETag's number
}

// patternName is what is known of a name, whatever its versions.
type patternName struct {
	Default string `json:"d"`           // the version that is run when none is named
	Chosen  bool   `json:"c,omitempty"` // by an operator: a newer one does not take its place
}

// trustedKeyRecord is a stored TrustedKey.
type trustedKeyRecord struct {
	Key     string    `json:"k"`
	Created time.Time `json:"c"`
}

// patternSecretRecord is a stored secret, sealed under its name.
type patternSecretRecord struct {
	Sealed  []byte    `json:"s"`
	Updated time.Time `json:"u"`
	By      string    `json:"b"`
}

var (
	// patternTable: (name, version).
	patternTable = storage.NewTable[patternRecord]("pattern", 1, plainJSON[patternRecord]{storage.JSON[patternRecord]()},
		storage.Index[patternRecord]{Name: "hash", Keys: func(_ storage.Key, r patternRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.Hash)}
		}},
	)
	// patternNameTable: (name).
	patternNameTable = storage.NewTable("pattern_name", 1, storage.JSON[patternName]())
	// patternShippedTable: (hash). Bundles of the binary that were installed once: one
	// that was removed stays removed.
	patternShippedTable = storage.NewTable("pattern_shipped", 1, storage.JSON[struct{}]())
	// patternKeyTable: (name), keys whose signatures are trusted.
	patternKeyTable = storage.NewTable("pattern_key", 1, storage.JSON[trustedKeyRecord](),
		storage.Index[trustedKeyRecord]{Name: "key", Keys: func(_ storage.Key, r trustedKeyRecord) []storage.Key {
			return []storage.Key{storage.Tuple(r.Key)}
		}},
	)
	// patternSecretTable: (name).
	patternSecretTable = storage.NewTable("pattern_secret", 1, storage.JSON[patternSecretRecord]())
)

// Counters of patterns.
const (
	counterPatterns       = "patterns" // names
	counterPatternsBytes  = "patterns.bytes"
	counterPatternKeys    = "patterns.keys"
	counterPatternSecrets = "patterns.secrets"
)

func patternKey(name, version string) storage.Key { return storage.Tuple(name, version) }

// patternBlobKeeper names what keeps the files of a version.
func patternBlobKeeper(name, version string) storage.Key {
	return storage.Tuple("pattern", name, version)
}

// nameOfPattern returns what is known of a name; CodePatternNotFound.
func nameOfPattern(r storage.Reader, name string) (patternName, error) {
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
		n, err := nameOfPattern(r, name)
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

// usable says why no run of it may begin; nil: it may.
func (r *patternRecord) usable() error {
	if r.Enabled {
		return nil
	}
	e := errf(CodePatternState, "the version %s of the pattern %q is disabled", r.Manifest.Version, r.Manifest.Name)
	e.Next = "Enable it, or name another version: `muster pattern list` shows what there is."
	return e
}

// what names the version in messages.
func (r *patternRecord) what() string {
	return "the version " + r.Manifest.Version + " of the pattern " + strconv.Quote(r.Manifest.Name)
}

// show returns the record as callers see it.
func (h *Hub) showPattern(r storage.Reader, record *patternRecord) (Pattern, error) {
	m := &record.Manifest
	p := Pattern{
		Manifest: *m, Hash: record.Hash, Origin: record.Origin, Signer: record.Signer, Granted: record.Granted, Enabled: record.Enabled,
		Missing: m.Missing(), Installed: record.Installed.UTC(), Principal: record.Principal,
		ETag: savedETag(h.db.Epoch().Ordinal, record.Installed, record.Revision), Cost: h.patternCost(m.Name, m.Version),
	}
	n, err := patternNameTable.Get(r, storage.Tuple(m.Name))
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return p, err
	}
	p.Default = n.Default == m.Version
	if p.Triggers, err = showTriggers(r, record, p.Default); err != nil {
		return p, err
	}
	p.Active, err = patternActive(r, m.Name, m.Version)
	return p, err
}
