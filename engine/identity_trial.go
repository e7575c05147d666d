package engine

import (
	"context"
	"errors"
	"hash/maphash"

	"github.com/muster-hub/muster/storage"
)

// importTrial is a dry run: each step is made as it would be, and given up
// before it is committed. What earlier steps would have made or deleted is
// remembered by name, so that a module finds its device.
type importTrial struct {
	seed  maphash.Seed
	known map[uint64]bool // whether an identity would be there now
}

// trialMost bounds what a dry run remembers, some 60 MB.
const trialMost = 2_000_000

func newImportTrial() *importTrial {
	return &importTrial{maphash.MakeSeed(), map[uint64]bool{}}
}

func (t *importTrial) key(id TwinID) uint64 {
	return maphash.String(t.seed, id.DeviceID+"\x00"+id.ModuleID)
}

// errTrial gives a transaction up that was only to be tried.
var errTrial = errors.New("only tried")

// tryStep finds out what a step would do, and then counts that.
func (h *Hub) tryStep(ctx context.Context, id string, b importBatch, trial *importTrial) error {
	if len(trial.known) > trialMost {
		return errf(CodeTooLarge, "a dry run remembers %d identities, and the file has more; divide it", trialMost)
	}
	var outcomes []lineOutcome
	var faults []*Error
	err := h.step(ctx, "import.try", func(tx *storage.Tx) error {
		outcomes, faults = make([]lineOutcome, len(b.lines)), make([]*Error, len(b.lines))
		r, _, err := h.importPlaceTx(tx, id, b)
		if err != nil {
			return err
		}
		c := importCaller(r.Owner, id)
		for i := range b.lines {
			l := &b.lines[i]
			if faults[i] = l.err; l.err != nil {
				continue
			}
			err := tx.Try(func() (err error) {
				if err := h.supposeTx(tx, c, l.id(), trial); err != nil {
					return err
				}
				outcomes[i], err = h.applyLineTx(tx, c, &l.identityLine)
				return err
			})
			if faults[i], err = lineFault(err); err != nil {
				return err
			}
		}
		return errTrial
	})
	if !errors.Is(err, errTrial) {
		return err
	}
	for i := range b.lines {
		if faults[i] == nil {
			trial.known[trial.key(b.lines[i].id())] = outcomes[i] != lineDeleted
		}
	}
	return h.step(ctx, "import.tried", func(tx *storage.Tx) error {
		_, place, err := h.importPlaceTx(tx, id, b)
		if err != nil {
			return err
		}
		log := importLog{place: &place, most: h.limits.ImportLogBytes}
		for i := range b.lines {
			if faults[i] != nil {
				log.add(importFault{line: b.lines[i].number, id: b.lines[i].id(), err: faults[i]})
			} else {
				place.count(outcomes[i])
			}
		}
		return errors.Join(identityJobPlaceTable.Put(tx, identityJobKey(id), place), log.putTx(tx, id, b.line))
	})
}

// supposeTx makes what earlier steps would have made, and deletes what they
// would have deleted, as far as a line looks at it.
func (h *Hub) supposeTx(tx *storage.Tx, c Caller, id TwinID, trial *importTrial) error {
	names := []TwinID{{DeviceID: id.DeviceID}}
	if id.ModuleID != "" {
		names = append(names, id)
	}
	for _, name := range names {
		would, ok := trial.known[trial.key(name)]
		if !ok {
			continue
		}
		is, err := identityTable(name).Has(tx, identityKey(name))
		if err != nil {
			return err
		}
		switch {
		case would && !is:
			i := Identity{DeviceID: name.DeviceID, ModuleID: name.ModuleID, Authentication: Authentication{Type: AuthCertificateAuthority}}
			_, err = h.createIdentityTx(tx, c, i, TwinUpdate{})
		case !would && is:
			err = h.deleteWithModulesTx(tx, c, name, IfMatch{Any: true})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
