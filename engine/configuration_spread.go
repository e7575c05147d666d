package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muster-hub/muster/engine/configuration"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/storage"
)

// spreadRecord says how far the twins of a configuration that changed have been
// looked at: those that its condition selects, then those that had it before. A
// twin that comes to be selected meanwhile is found by its own change.
type spreadRecord struct {
	Had     bool      `json:"h,omitempty"`
	After   []byte    `json:"a,omitempty"` // the row, or the key of the last twin that was looked at
	Looked  int64     `json:"n,omitempty"` // twins so far
	Started time.Time `json:"t"`
}

// spreadTable: (id of the configuration).
var spreadTable = storage.NewTable("configurationspread", 1, storage.JSON[spreadRecord]())

// spreadPage is how many twins are looked at in one go.
const spreadPage = 500

// changeSetTx takes note that what twins get of a configuration has changed.
// anew says that no twin has its newest revision.
func (h *Hub) changeSetTx(tx *storage.Tx, id string, anew bool) error {
	tx.Add(counterConfigurationSet, 1)
	n, err := storage.Counter(tx, counterConfigurationSet)
	if err != nil {
		return err
	}
	if err := configurationChangeTable.Put(tx, storage.Tuple(n), id); err != nil {
		return err
	}
	if n > setChangesKept {
		if err := configurationChangeTable.Delete(tx, storage.Tuple(n-setChangesKept)); err != nil {
			return err
		}
	}
	tx.OnCommit(func(uint64) { h.configurations.stored() })
	if !anew {
		return nil
	}
	for _, name := range []string{counterConfigurationSettled(id), counterConfigurationFailed(id)} {
		n, err := storage.Counter(tx, name)
		if err != nil {
			return err
		}
		if n != 0 {
			tx.Add(name, -n)
		}
	}
	return nil
}

// beginSpreadTx has a configuration's twins looked at from the beginning, since
// what they get has changed.
func (h *Hub) beginSpreadTx(tx *storage.Tx, id string, anew bool) error {
	return errors.Join(h.changeSetTx(tx, id, anew), spreadTable.Put(tx, configurationKey(id), spreadRecord{Started: tx.Now()}))
}

// spreads reports whether a configuration's twins are being looked at.
func spreads(r storage.Reader, id string) (bool, error) {
	_, err := spreadTable.Get(r, configurationKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func configurationOfKey(k storage.Key) (string, error) {
	parts, err := k.Parts()
	if err != nil || len(parts) == 0 {
		return "", errors.New("key is not that of a configuration")
	}
	id, ok := parts[0].(string)
	if !ok {
		return "", errors.New("key is not that of a configuration")
	}
	return id, nil
}

// spread looks at the next twins of a configuration.
func (f *configurationFollower) spread(ctx context.Context, id string, s spreadRecord) error {
	var twins []TwinID
	var err error
	next := s
	if s.Had {
		twins, next.After, err = f.having(ctx, id, s.After)
	} else {
		twins, next.After, err = f.selected(ctx, id, s.After)
	}
	if err != nil {
		return err
	}
	if next.After == nil {
		next.Had = true
	}
	next.Looked += int64(len(twins))
	done := s.Had && next.After == nil
	err = f.configure(ctx, twins, "configuration.spread", func(tx *storage.Tx) error {
		if done {
			return spreadTable.Delete(tx, configurationKey(id))
		}
		return spreadTable.Put(tx, configurationKey(id), next)
	})
	if err == nil && done {
		f.hub.log.Info("a configuration is spread", slog.String("configuration", id), slog.Int64("twins", next.Looked), slog.Duration("took", time.Since(s.Started).Round(time.Millisecond)))
	}
	return err
}

// selected returns the next twins that a configuration's condition selects; after
// is nil behind the last one.
func (f *configurationFollower) selected(ctx context.Context, id string, after []byte) (twins []TwinID, last []byte, err error) {
	h, m := f.hub, f.set.member(id)
	if m == nil || m.where == nil {
		return nil, nil, nil
	}
	source := query.Devices
	if m.content.Kind() == configuration.OfModule {
		source = query.Modules
	}
	l := &h.limits
	err = h.queries.columns[source].Select(ctx, m.where.Query(source), query.Ask{
		After: string(after), Limit: spreadPage, Now: time.Now().UTC(), Documents: hubDocuments{hub: h},
		Budget: query.Budget{Rows: int64(l.QueryDocuments), Time: l.QueryTime, Memory: l.QueryMemory},
	}, nil, func(rows []query.Row) bool {
		for _, row := range rows {
			twins = append(twins, twinIDOfRow(row.ID))
			last = []byte(row.ID)
		}
		return len(twins) < spreadPage
	})
	if err != nil {
		return nil, nil, queryRunError(err)
	}
	if len(twins) < spreadPage {
		last = nil
	}
	if m.content.Kind() != configuration.OfModules {
		return twins, last, nil
	}
	twins, err = f.modules(ctx, twins)
	return twins, last, err
}

// modules returns the modules of those devices that are edge devices.
func (f *configurationFollower) modules(ctx context.Context, devices []TwinID) (list []TwinID, err error) {
	err = f.hub.view(ctx, "read modules", func(r storage.Reader) error {
		list = nil
		for _, id := range devices {
			if list, err = edgeModules(r, list, id); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

func edgeModules(r storage.Reader, list []TwinID, device TwinID) ([]TwinID, error) {
	identity, err := loadIdentity(r, device)
	if isGone(err) {
		return list, nil
	}
	if err != nil || !identity.Edge {
		return list, err
	}
	for item, err := range moduleTable.Scan(r, storage.Range{Prefix: storage.Tuple(device.DeviceID)}) {
		if err != nil {
			return nil, err
		}
		module, err := (TwinID{}).fromKey(item.Key)
		if err != nil {
			return nil, err
		}
		list = append(list, module)
	}
	return list, nil
}

// having returns the next twins that have something of a configuration.
func (f *configurationFollower) having(ctx context.Context, id string, after []byte) (twins []TwinID, last []byte, err error) {
	err = f.hub.view(ctx, "read what twins have of configurations", func(r storage.Reader) error {
		twins, last = nil, nil
		looked := 0
		for item, err := range configuredTable.Scan(r, storage.Range{After: after}) {
			if err != nil {
				return err
			}
			if item.Value.has(id) {
				twin, err := (TwinID{}).fromKey(item.Key)
				if err != nil {
					return err
				}
				twins = append(twins, twin)
			}
			if looked++; len(twins) == spreadPage || looked == 20*spreadPage {
				last = append([]byte{}, item.Key...)
				return nil
			}
		}
		return nil
	})
	return twins, last, err
}

// has reports whether the twin has anything of a configuration.
func (r *configuredRecord) has(id string) bool {
	if r.find(id) != nil {
		return true
	}
	for _, o := range r.Of {
		if o.ID == id {
			return true
		}
	}
	return false
}
