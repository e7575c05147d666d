package engine

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/muster-hub/muster/storage"
)

// What one step of an import holds: it is one transaction, which others may
// have to wait for. A line weighs as much as it makes the store do.
const (
	importLines  = 384 // of the usual weight
	importBytes  = 256 << 10
	weightModule = 4  // its device's modules are counted
	weightDelete = 16 // all that the device has is looked for
	weightUpdate = 2
)

// importBatch is the lines of one step, read and prepared.
type importBatch struct {
	after   int64 // line behind which it begins
	skipped int64
	lines   []preparedLine
	line    int64 // it ends behind this line
	offset  int64 // and this byte
	err     error // of reading the file; io.EOF ends it
}

// preparedLine is a line with what is wrong with it already, if anything.
type preparedLine struct {
	identityLine
	number int64
	end    int64 // byte behind it
	err    *Error
}

func (l *preparedLine) weight() int {
	switch {
	case l.err != nil:
		return 0
	case l.mode == ImportDelete || l.mode == ImportDeleteIfMatch:
		return weightDelete
	case l.identity.ModuleID != "":
		return weightModule
	case l.mode != ImportCreate && l.mode != ImportCreateOrUpdate:
		return weightUpdate
	}
	return 1
}

// Importing reports whether an import of identities is under way, which takes more memory than most
// of what a hub does.
func (h *Hub) Importing() bool { return h.imports.lines.Load() }

// runImport does an import's lines from where it stands, in order, and ends it.
// The lines of the next step are read and prepared while one is committed.
func (h *Hub) runImport(ctx context.Context, id string, r identityJobRecord, place identityJobPlace) error {
	content, err := h.db.Blobs().Open(r.Content.Digest)
	if errors.Is(err, storage.ErrNotFound) {
		return errf(CodeInternal, "the content of the blob %q is missing; run `muster verify` on the stopped hub", r.InputBlob)
	}
	if err != nil {
		return storeError(err, "open the file of an import")
	}
	defer content.Close()
	if _, err := content.Seek(place.Offset, io.SeekStart); err != nil {
		return storeError(err, "read the file of an import")
	}
	h.imports.lines.Store(true)
	defer h.imports.lines.Store(false)
	mode := r.Mode
	if mode == "" {
		mode = ImportCreateOrUpdate
	}
	lines := newLineReader(content, h.limits.ImportLineBytes, place.Lines, place.Offset)
	batches := make(chan importBatch)
	reading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.readBatches(reading, lines, mode, batches)
	}()
	defer func() { stop(); <-done }()
	var trial *importTrial
	if r.DryRun {
		trial = newImportTrial()
	}
	for {
		var b importBatch
		select {
		case b = <-batches:
		case <-ctx.Done():
			return ctx.Err()
		}
		if b.err != nil && !errors.Is(b.err, io.EOF) {
			return storeError(b.err, "read the file of an import")
		}
		if err := h.importBatch(ctx, id, b, trial); err != nil {
			return err
		}
		if b.err == nil {
			continue
		}
		if r.ConfigContent != nil {
			if err := h.importConfigurations(ctx, id, &r); err != nil {
				return err
			}
		}
		return h.endImport(ctx, id, r)
	}
}

// readBatches reads to the end of the file, and stops behind an error.
func (h *Hub) readBatches(ctx context.Context, lines *lineReader, mode ImportMode, to chan<- importBatch) {
	for {
		b := h.readBatch(lines, mode)
		select {
		case to <- b:
		case <-ctx.Done():
			return
		}
		if b.err != nil {
			return
		}
	}
}

func (h *Hub) readBatch(lines *lineReader, mode ImportMode) importBatch {
	b := importBatch{after: lines.number, lines: make([]preparedLine, 0, importLines)}
	weight, start, now := 0, lines.offset, time.Now()
	for weight < importLines && len(b.lines) < importLines && lines.offset-start < importBytes {
		line, long, err := lines.next()
		if err != nil {
			b.err = err
			break
		}
		if !long && !isIdentityLine(line) {
			b.skipped++
			continue
		}
		p := preparedLine{number: lines.number, end: lines.offset}
		switch {
		case long:
			err = badLine("it has more than %d bytes", h.limits.ImportLineBytes)
		default:
			if p.identityLine, err = parseIdentityLine(line, mode); err == nil {
				err = h.prepareLine(&p.identityLine, now)
			}
		}
		if err != nil {
			p.err = AsError(err)
		}
		b.lines = append(b.lines, p)
		weight += p.weight()
	}
	b.line, b.offset = lines.number, lines.offset
	return b
}

// importBatch applies a batch: in one step, or in halves where the store can't
// take it at once.
func (h *Hub) importBatch(ctx context.Context, id string, b importBatch, trial *importTrial) error {
	err := h.importStep(ctx, id, b, trial)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeTooLarge || len(b.lines) == 0 {
		return err
	}
	if len(b.lines) == 1 {
		b.lines[0].err = errf(CodeTooLarge, "what the line makes is more than the store takes at once")
		return h.importStep(ctx, id, b, trial)
	}
	half := len(b.lines) / 2
	first, second := b, b
	first.lines, second.lines = b.lines[:half], b.lines[half:]
	last := first.lines[half-1]
	first.line, first.offset = last.number, last.end
	// The lines that are skipped count where they are told apart: by number.
	first.skipped = first.line - first.after - int64(half)
	second.after, second.skipped = first.line, b.skipped-first.skipped
	if err := h.importBatch(ctx, id, first, trial); err != nil {
		return err
	}
	return h.importBatch(ctx, id, second, trial)
}

// importStep applies a batch in one transaction, with the place behind it and
// what went wrong. A line that fails leaves nothing else.
func (h *Hub) importStep(ctx context.Context, id string, b importBatch, trial *importTrial) error {
	if trial != nil {
		return h.tryStep(ctx, id, b, trial)
	}
	return h.step(ctx, "import.lines", func(tx *storage.Tx) error {
		r, place, err := h.importPlaceTx(tx, id, b)
		if err != nil {
			return err
		}
		log := importLog{place: &place, most: h.limits.ImportLogBytes}
		c := importCaller(r.Owner, id)
		for i := range b.lines {
			l := &b.lines[i]
			fault := l.err
			if fault == nil {
				var what lineOutcome
				err := tx.Try(func() (err error) { what, err = h.applyLineTx(tx, c, &l.identityLine); return err })
				if fault, err = lineFault(err); err != nil {
					return err
				}
				if fault == nil {
					place.count(what)
				}
			}
			if fault != nil {
				log.add(importFault{line: l.number, id: l.id(), err: fault})
			}
		}
		return errors.Join(identityJobPlaceTable.Put(tx, identityJobKey(id), place), log.putTx(tx, id, b.line))
	})
}

// importPlaceTx returns a job and the place behind a batch; an error when it
// has ended, when its owner may no longer, or when the batch is not the next.
func (h *Hub) importPlaceTx(tx *storage.Tx, id string, b importBatch) (identityJobRecord, identityJobPlace, error) {
	r, place, err := loadIdentityJob(tx, id)
	switch {
	case err != nil:
		return r, place, err
	case r.Status != IdentityJobRunning:
		return r, place, errJobEnded
	case place.Lines != b.after:
		return r, place, errf(CodeInternal, "the import stands behind line %d, and the next step begins behind %d", place.Lines, b.after)
	}
	place.Lines, place.Offset, place.Skipped, place.Moved = b.line, b.offset, place.Skipped+b.skipped, tx.Now().UTC()
	return r, place, h.mayGoOn(r.Owner, opIdentityImport)
}

func (p *identityJobPlace) count(what lineOutcome) {
	switch what {
	case lineCreated:
		p.Created++
	case lineUpdated:
		p.Updated++
	case lineDeleted:
		p.Deleted++
	}
}

// lineFault tells what is wrong with a line from what is wrong with the store.
func lineFault(err error) (*Error, error) {
	if err == nil {
		return nil, nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		if _, ok := importNumbers[e.Code]; ok && e.Code != CodeInternal {
			return e, nil
		}
	}
	return nil, err
}
