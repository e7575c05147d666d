package engine

import (
	"math"

	"github.com/muster-hub/muster/storage"
)

// versionsPerEpoch is how far a restore raises the desired $version of each twin: devices may have
// seen versions that the backup does not hold, and must not take a newer one for an old one.
const versionsPerEpoch = 1_000_000

// getTwin reads a twin record. The first touch after a restore raises its desired $version;
// until somebody writes the twin, every read computes the same.
func (h *Hub) getTwin(r storage.Reader, id TwinID) (twinRecord, error) {
	t, err := twinTable.Get(r, id.key())
	if err != nil {
		return t, err
	}
	t.enter(h.db.Epoch().Ordinal)
	return t, nil
}

func (r *twinRecord) enter(epoch uint32) {
	if last := max(r.Epoch, 1); last < epoch {
		more := int64(epoch-last) * versionsPerEpoch
		r.Desired = r.Desired.WithVersion(min(r.Desired.Version(), math.MaxInt64-more) + more)
	}
	r.Epoch = epoch
}
