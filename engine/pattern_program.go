package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// patternState is the state of patterns in memory. It is safe for concurrent use.
type patternState struct {
	scripts  Interpreter                // nil: there are none
	shipped  map[string]*pattern.Bundle // of the binary, by hash
	triggers triggerState

	mu    sync.Mutex
	kept  map[string]*keptBundle // by hash, those that were used last
	bytes int64                  // of kept
	tick  int64
}

// keptBundle is a bundle in memory.
type keptBundle struct {
	bundle *pattern.Bundle
	bytes  int64
	used   int64
}

// programsMost bounds the bundles that are kept in memory, in bytes; the last one
// used is always kept.
const programsMost = 32 << 20

// program returns the bundle of a hash, from the store or from those that were
// used last. Nobody may change it. CodePatternNotFound.
func (h *Hub) program(ctx context.Context, hash string) (*pattern.Bundle, error) {
	p := &h.patterns
	p.mu.Lock()
	if k := p.kept[hash]; k != nil {
		p.tick++
		k.used = p.tick
		p.mu.Unlock()
		return k.bundle, nil
	}
	p.mu.Unlock()
	var record patternRecord
	err := h.view(ctx, "read a pattern", func(r storage.Reader) error {
		for item, err := range patternTable.Lookup(r, "hash", storage.Range{Prefix: storage.Tuple(hash)}) {
			record = item.Value
			return err
		}
		return errf(CodePatternNotFound, "no pattern with the hash %q is installed any more", clip(hash))
	})
	if err != nil {
		return nil, err
	}
	bundle, err := h.readBundle(record.Blob)
	if err != nil {
		return nil, wrapf(CodeInternal, err, "the files of %s can't be read: %v", record.what(), err)
	}
	if bundle.Hash() != hash {
		return nil, errf(CodeInternal, "the files of %s are not those that were installed", record.what())
	}
	p.keep(hash, bundle, record.Bytes)
	return bundle, nil
}

// keep keeps a bundle in memory, and drops others.
func (p *patternState) keep(hash string, b *pattern.Bundle, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil {
		p.kept = map[string]*keptBundle{}
	}
	if p.kept[hash] != nil {
		return
	}
	p.tick++
	p.kept[hash] = &keptBundle{b, bytes, p.tick}
	p.bytes += bytes
	for p.bytes > programsMost && len(p.kept) > 1 {
		oldest := ""
		for name, k := range p.kept {
			if oldest == "" || k.used < p.kept[oldest].used {
				oldest = name
			}
		}
		p.bytes -= p.kept[oldest].bytes
		delete(p.kept, oldest)
	}
}

// forget drops a bundle that was removed.
func (p *patternState) forget(hash string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.kept[hash]; k != nil {
		p.bytes -= k.bytes
		delete(p.kept, hash)
	}
}

// encodeBundle writes a bundle as its blob holds it: JSON, files by path.
func encodeBundle(b *pattern.Bundle) ([]byte, error) { return json.Marshal(b.Files) }

// readBundle reads a blob that encodeBundle made.
func (h *Hub) readBundle(digest string) (*pattern.Bundle, error) {
	content, err := h.db.Blobs().Open(digest)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(content, 2*pattern.MaxBundle))
	if err = errors.Join(err, content.Close()); err != nil {
		return nil, err
	}
	b := &pattern.Bundle{}
	return b, json.Unmarshal(text, &b.Files)
}

// interpreter returns who runs programs.
func (h *Hub) interpreter() (Interpreter, error) {
	if h.patterns.scripts == nil {
		return nil, errf(CodeUnavailable, "this hub runs no patterns: it was started without scripting")
	}
	return h.patterns.scripts, nil
}
