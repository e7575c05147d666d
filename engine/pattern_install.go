package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/storage"
)

// loadedPattern is a bundle that was found to be a pattern.
type loadedPattern struct {
	install  PatternInstall
	manifest *pattern.Manifest
	hash     string
	blob     []byte
}

// loadPattern reads a bundle's manifest and checks all that does not depend on
// what is installed.
func (h *Hub) loadPattern(ctx context.Context, p PatternInstall) (*loadedPattern, error) {
	scripts, err := h.interpreter()
	if err != nil {
		return nil, err
	}
	if p.Bundle == nil || len(p.Bundle.Files) == 0 {
		return nil, errf(CodeArgumentNull, "the pattern has no files; expected %s at least", pattern.MainFile)
	}
	if err := p.Bundle.Check(); err != nil {
		return nil, wrapf(CodePatternInvalid, err, "the pattern's files: %v", err)
	}
	m, err := scripts.Load(ctx, p.Bundle)
	if err != nil {
		return nil, invalidPattern(err)
	}
	if err := m.Validate(); err != nil {
		return nil, wrapf(CodePatternInvalid, err, "the pattern's manifest: %v", err)
	}
	if err := checkID("name of a pattern", m.Name, patternNameBytes); err != nil {
		return nil, wrapf(CodePatternInvalid, err, "the pattern's manifest: %s", AsError(err).Message)
	}
	if len(m.Version) > patternVersionBytes {
		return nil, errf(CodePatternInvalid, "the pattern's manifest: version has %d bytes; expected at most %d", len(m.Version), patternVersionBytes)
	}
	if p.Signature != nil {
		if err := p.Signature.Verify(p.Bundle); err != nil {
			return nil, wrapf(CodePatternInvalid, err, "%s is not a signature of the pattern's files: %v", pattern.SignatureFile, err)
		}
	}
	blob, err := encodeBundle(p.Bundle)
	if err != nil {
		return nil, err
	}
	return &loadedPattern{p, m, p.Bundle.Hash(), blob}, nil
}

// Bounds of a manifest's texts that are parts of keys.
const (
	patternNameBytes    = 64
	patternVersionBytes = 64
)

// invalidPattern gives an error of an interpreter its code.
func invalidPattern(err error) error {
	if fault, ok := errors.AsType[*pattern.Fault](err); ok {
		where := ""
		if fault.Line != "" {
			where = " (" + fault.Line + ")"
		}
		return wrapf(CodePatternInvalid, err, "the pattern can't be loaded: %s%s", fault.Message, where)
	}
	if _, ok := errors.AsType[rollout.Faults](err); ok { // of its manifest
		return wrapf(CodePatternInvalid, err, "the manifest is not right: %v", err)
	}
	return wrapf(CodeUnavailable, err, "the pattern could not be loaded: %v", err)
}

// missingGrants are the needs of a manifest that were not granted.
func missingGrants(m *pattern.Manifest, granted pattern.Needs) pattern.Needs {
	var list pattern.Needs
	for _, n := range m.Needs {
		if !granted.Allows(n) {
			list = append(list, n)
		}
	}
	return list
}

// newRecord returns the record that an install makes; what stands against it is
// an error unless inspect is set.
func (h *Hub) newRecord(r storage.Reader, c Caller, l *loadedPattern, inspect bool) (patternRecord, error) {
	m := l.manifest
	record := patternRecord{
		Manifest: *m, Hash: l.hash, Bytes: int64(len(l.blob)), Origin: PatternUnsigned, Granted: pattern.Needs(m.Needs),
		Enabled: !l.install.Disabled && len(m.Missing()) == 0, Off: l.install.Disabled, Owner: jobOwner{c.Kind, c.Name}, Principal: c.Principal.String(),
	}
	switch {
	case h.patterns.shipped[l.hash] != nil:
		record.Origin = PatternShipped
	case l.install.Signature != nil:
		name, err := trustedName(r, l.install.Signature.Key)
		if err != nil {
			return record, err
		}
		if name != "" {
			record.Origin, record.Signer = PatternSigned, name
		} else if !l.install.Unsigned && !inspect {
			return record, errf(CodePatternUnsigned, "the pattern %q is signed by a key that this hub does not trust: %s", m.Name, clip(l.install.Signature.Key))
		}
	case !l.install.Unsigned && !inspect:
		return record, errf(CodePatternUnsigned, "the pattern %q is not signed", m.Name)
	}
	if missing := missingGrants(m, l.install.Grant); len(missing) > 0 && !inspect {
		e := errf(CodePatternGrant, "the pattern %q needs what was not granted: %s", m.Name, words(missing))
		e.Next = "Look at what it asks for, and install it again with all of that granted: " + grantList(m) + "."
		return record, e
	}
	return record, nil
}

// grantList is how all needs of a manifest are granted.
func grantList(m *pattern.Manifest) string {
	list := make([]string, len(m.Needs))
	for i, n := range m.Needs {
		list[i] = string(n)
	}
	return "grant=" + strings.Join(list, ",")
}

// InspectPattern says what InstallPattern would install, and what it needs,
// without a change: grants and a signature that are missing are no error here, all
// else is. It needs HubManage.
func (h *Hub) InspectPattern(ctx context.Context, c Caller, p PatternInstall) (out Pattern, err error) {
	if err := h.authorize(ctx, c, opPatternWrite, "*"); err != nil {
		return Pattern{}, err
	}
	l, err := h.loadPattern(ctx, p)
	if err != nil {
		return Pattern{}, err
	}
	err = h.view(ctx, "look at a pattern", func(r storage.Reader) error {
		record, err := h.newRecord(r, c, l, true)
		if err != nil {
			return err
		}
		if old, err := h.sameVersion(r, l); err != nil {
			return err
		} else if old != nil {
			record = *old
		}
		record.Granted = p.Grant
		out, err = h.showPattern(r, &record)
		return err
	})
	return out, err
}

// sameVersion returns what is installed of the version; nil: nothing is.
// CodePatternAlreadyExists if it has other files.
func (h *Hub) sameVersion(r storage.Reader, l *loadedPattern) (*patternRecord, error) {
	old, err := patternTable.Get(r, patternKey(l.manifest.Name, l.manifest.Version))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case old.Hash != l.hash:
		return nil, errf(CodePatternAlreadyExists, "the version %s of the pattern %q is installed with other files (its hash is %.12s, this one's %.12s)", l.manifest.Version, l.manifest.Name, old.Hash, l.hash)
	}
	return &old, nil
}

// InstallPattern installs a version of a pattern beside those that there are, and
// enables it unless it is to stay disabled or needs a part of Muster that is yet to
// come. It becomes the default version if it is the newest one and no operator has
// chosen another. The same files again change nothing. CodePatternInvalid,
// CodePatternUnsigned, CodePatternGrant with what was not granted,
// CodePatternAlreadyExists, CodeQuotaExceeded. It needs HubManage.
func (h *Hub) InstallPattern(ctx context.Context, c Caller, p PatternInstall) (out Pattern, err error) {
	if err := h.authorize(ctx, c, opPatternWrite, "*"); err != nil {
		return Pattern{}, err
	}
	l, err := h.loadPattern(ctx, p)
	if err != nil {
		return Pattern{}, err
	}
	return h.install(ctx, c, l)
}

// install stores what was loaded.
func (h *Hub) install(ctx context.Context, c Caller, l *loadedPattern) (out Pattern, err error) {
	w, err := h.db.Blobs().Create()
	if err != nil {
		return out, storeError(err, "store a pattern")
	}
	defer w.Abort()
	if _, err := w.Write(l.blob); err != nil {
		return out, storeError(err, "store a pattern")
	}
	err = h.stepBlob(ctx, "pattern.install", w, func(tx *storage.Tx, blob storage.Blob) error {
		out, err = h.installTx(tx, c, l, blob)
		return err
	})
	return out, err
}

func (h *Hub) installTx(tx *storage.Tx, c Caller, l *loadedPattern, blob storage.Blob) (Pattern, error) {
	record, err := h.newRecord(tx, c, l, false)
	if err != nil {
		return Pattern{}, err
	}
	m := l.manifest
	old, err := h.sameVersion(tx, l)
	if err != nil {
		return Pattern{}, err
	}
	if old != nil {
		if old.Origin != PatternUnsigned || record.Origin == PatternUnsigned {
			return h.showPattern(tx, old)
		}
		old.Origin, old.Signer = record.Origin, record.Signer // it is known now where it comes from
		return h.storePatternTx(tx, c, old, changePatternState, "signed")
	}
	name, err := patternNameTable.Get(tx, storage.Tuple(m.Name))
	isNew := errors.Is(err, storage.ErrNotFound)
	if err != nil && !isNew {
		return Pattern{}, err
	}
	if err := h.roomForPattern(tx, m.Name, isNew, blob.Size); err != nil {
		return Pattern{}, err
	}
	record.Blob, record.Bytes, record.Installed = blob.Digest, blob.Size, tx.Now()
	tx.Add(counterPatternsBytes, blob.Size)
	if isNew {
		tx.Add(counterPatterns, 1)
	}
	if record.Origin == PatternShipped {
		if err := patternShippedTable.Put(tx, storage.Tuple(l.hash), struct{}{}); err != nil {
			return Pattern{}, err
		}
	}
	if isNew || !name.Chosen && pattern.CompareVersions(m.Version, name.Default) > 0 {
		if err := h.moveDefaultTx(tx, m.Name, m.Version, false); err != nil {
			return Pattern{}, err
		}
	}
	if err := h.db.Blobs().Refer(tx, blob, patternBlobKeeper(m.Name, m.Version)); err != nil {
		return Pattern{}, err
	}
	return h.storePatternTx(tx, c, &record, changePattern, "installed")
}

// roomForPattern refuses what would be more than may be installed.
func (h *Hub) roomForPattern(tx *storage.Tx, name string, isNew bool, bytes int64) error {
	names, err := storage.Counter(tx, counterPatterns)
	if err != nil {
		return err
	}
	if most := h.limits.Patterns; isNew && names >= int64(most) {
		return errf(CodeQuotaExceeded, "%d patterns are installed, and the limit is %d; remove one first", names, most)
	}
	all, err := storage.Counter(tx, counterPatternsBytes)
	if err != nil {
		return err
	}
	if most := h.limits.PatternsBytes; all+bytes > int64(most) {
		return errf(CodeQuotaExceeded, "the files of all patterns would have %d bytes, and the limit is %d; remove versions that nothing runs", all+bytes, most)
	}
	versions, err := versionsOf(tx, name)
	if err != nil {
		return err
	}
	if most := h.limits.PatternVersions; len(versions) >= most {
		return errf(CodeQuotaExceeded, "%d versions of the pattern %q are installed, and the limit is %d; remove one first", len(versions), name, most)
	}
	return nil
}

// versionsOf returns the installed versions of a name.
func versionsOf(r storage.Reader, name string) (list []patternRecord, err error) {
	for item, err := range patternTable.Scan(r, storage.Range{Prefix: storage.Tuple(name)}) {
		if err != nil {
			return nil, err
		}
		list = append(list, item.Value)
	}
	return list, nil
}

// storePatternTx stores a version that was made or changed, with its event and in
// the audit.
func (h *Hub) storePatternTx(tx *storage.Tx, c Caller, r *patternRecord, change, what string) (Pattern, error) {
	m := &r.Manifest
	r.Revision++
	r.Updated = tx.Now()
	details := patternDetails(r, what)
	tx.OnCommit(func(uint64) { h.patterns.triggers.look() })
	err := errors.Join(
		patternTable.Put(tx, patternKey(m.Name, m.Version), *r),
		appendChange(tx, c, change, TwinID{}, 0, details),
		h.auditTx(tx, c, opPatternWrite, fmt.Sprintf("%s@%s", m.Name, m.Version), details),
	)
	if err != nil {
		return Pattern{}, err
	}
	return h.showPattern(tx, r)
}

// patternDetails are what events and the audit tell of a version.
func patternDetails(r *patternRecord, what string) []byte {
	m := beginMembers(make([]byte, 0, 256))
	m.text("pattern", r.Manifest.Name)
	m.text("version", r.Manifest.Version)
	m.text("what", what)
	m.text("hash", r.Hash)
	m.text("origin", string(r.Origin))
	m.textUnlessEmpty("signer", r.Signer)
	m.text("granted", words(r.Granted))
	return m.end()
}
