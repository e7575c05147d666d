package engine

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Fault makes one identity's connection bad on purpose, for whoever develops
// the device. It ends by itself.
type Fault struct {
	Target          TwinID
	Drop            float64       // share of messages lost in each direction, 0 to 1
	Delay           time.Duration // how long what the device sends is held back
	DisconnectEvery time.Duration // how old a connection gets; 0: no bound
	Created         time.Time
	Expires         time.Time
	Principal       string
}

// Bounds of a fault.
const (
	FaultDefault       = 10 * time.Minute // how long a fault lasts when nobody says
	faultLongest       = 24 * time.Hour
	faultDelayMost     = 30 * time.Second
	faultDisconnectMin = time.Second
	faultsMost         = 1000
)

type faultRecord struct {
	Drop       float64       `json:"d,omitempty"`
	Delay      time.Duration `json:"l,omitempty"`
	Disconnect time.Duration `json:"x,omitempty"`
	Created    time.Time     `json:"c"`
	Expires    time.Time     `json:"e"`
	Principal  string        `json:"p"`
}

var faultTable = storage.NewTable("fault", 1, storage.JSON[faultRecord]())

const counterFaults = "faults"

// Kinds of change of faults.
const (
	changeFaultAdded   = "fault.added"
	changeFaultRemoved = "fault.removed"
)

// faultSet holds the faults in force; a packet looks here.
type faultSet struct {
	some atomic.Int64 // how many: nearly always none
	lost atomic.Int64 // messages lost on purpose
	mu   sync.RWMutex
	list map[TwinID]Fault
}

func (r faultRecord) show(id TwinID) Fault {
	return Fault{id, r.Drop, r.Delay, r.Disconnect, r.Created.UTC(), r.Expires.UTC(), r.Principal}
}

func (f *faultSet) set(v Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.list == nil {
		f.list = map[TwinID]Fault{}
	}
	f.list[v.Target] = v
	f.some.Store(int64(len(f.list)))
}

func (f *faultSet) remove(id TwinID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.list, id)
	f.some.Store(int64(len(f.list)))
}

func (h *Hub) openFaults(ctx context.Context) error {
	return h.view(ctx, "load faults", func(r storage.Reader) error {
		for item, err := range faultTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			id, err := (TwinID{}).fromKey(item.Key)
			if err != nil {
				return err
			}
			h.sessions.faults.set(item.Value.show(id))
		}
		return nil
	})
}

// Fault returns the fault that is in force for an identity's connection. It
// is for edges: cheap, and safe from any goroutine.
func (h *Hub) Fault(id TwinID) (Fault, bool) {
	f := &h.sessions.faults
	if f.some.Load() == 0 {
		return Fault{}, false
	}
	f.mu.RLock()
	v, ok := f.list[id]
	f.mu.RUnlock()
	return v, ok && time.Now().Before(v.Expires)
}

// FaultLost counts a message that an edge lost on purpose.
func (h *Hub) FaultLost() { h.sessions.faults.lost.Add(1) }

// AddFault puts a fault in force for a time, 10 minutes when lasting is zero;
// it replaces the identity's earlier one. It needs HubManage.
func (h *Hub) AddFault(ctx context.Context, c Caller, f Fault, lasting time.Duration) (Fault, error) {
	id := f.Target
	if err := h.authorize(ctx, c, opFaultWrite, id.String()); err != nil {
		return f, err
	}
	if lasting == 0 {
		lasting = FaultDefault
	}
	switch {
	case !(f.Drop >= 0 && f.Drop <= 1): // also not a number
		return f, errf(CodeArgumentInvalid, "the share to drop is %v, allowed are 0 to 1", f.Drop)
	case f.Delay < 0 || f.Delay > faultDelayMost:
		return f, errf(CodeArgumentInvalid, "the delay is %s, allowed are 0 to %s", f.Delay, faultDelayMost)
	case f.DisconnectEvery < 0 || f.DisconnectEvery > 0 && f.DisconnectEvery < faultDisconnectMin || f.DisconnectEvery > faultLongest:
		return f, errf(CodeArgumentInvalid, "disconnecting every %s is not allowed; expected %s to %s", f.DisconnectEvery, faultDisconnectMin, faultLongest)
	case lasting < time.Second || lasting > faultLongest:
		return f, errf(CodeArgumentInvalid, "the fault would last %s, allowed are 1s to %s", lasting, faultLongest)
	case f.Drop == 0 && f.Delay == 0 && f.DisconnectEvery == 0:
		return f, errf(CodeArgumentInvalid, "the fault does nothing; expected a share to drop, a delay, or how often to disconnect")
	}
	err := h.update(ctx, "add fault", func(tx *storage.Tx) error {
		if _, err := loadIdentity(tx, id); err != nil {
			return err
		}
		_, err := faultTable.Get(tx, id.key())
		if errors.Is(err, storage.ErrNotFound) {
			n, err := storage.Counter(tx, counterFaults)
			if err != nil {
				return err
			}
			if n >= faultsMost {
				return errf(CodeArgumentInvalid, "%d faults are in force, which is the limit; remove one first", n)
			}
			tx.Add(counterFaults, 1)
		} else if err != nil {
			return err
		}
		r := faultRecord{f.Drop, f.Delay, f.DisconnectEvery, tx.Now(), tx.Now().Add(lasting), c.Principal.String()}
		f = r.show(id)
		set := f
		details, err := json.Marshal(map[string]any{"drop": f.Drop, "delaySeconds": f.Delay.Seconds(), "disconnectEverySeconds": f.DisconnectEvery.Seconds(), "expires": f.Expires})
		tx.OnCommit(func(uint64) { h.sessions.faults.set(set) })
		return errors.Join(err,
			faultTable.Put(tx, id.key(), r),
			appendChange(tx, c, changeFaultAdded, id, 0, details),
			h.auditTx(tx, c, opFaultWrite, id.String(), details),
		)
	})
	if err == nil {
		h.log.Warn("a fault is injected into a device's connection", slog.String("device", id.String()), slog.Float64("drop", f.Drop), slog.Duration("delay", f.Delay), slog.Duration("disconnect_every", f.DisconnectEvery), slog.Time("expires", f.Expires), slog.String("by", f.Principal))
	}
	return f, err
}

// RemoveFault ends an identity's fault; without one it does nothing. It needs
// HubManage.
func (h *Hub) RemoveFault(ctx context.Context, c Caller, id TwinID) error {
	if err := h.authorize(ctx, c, opFaultWrite, id.String()); err != nil {
		return err
	}
	return h.update(ctx, "remove fault", func(tx *storage.Tx) error {
		if _, err := loadIdentity(tx, id); err != nil {
			return err
		}
		removed, err := h.removeFaultTx(tx, c, id, time.Time{})
		if err != nil || !removed {
			return err
		}
		return h.auditTx(tx, c, opFaultWrite, id.String(), json.RawMessage(`{"removed":true}`))
	})
}

// removeFaultTx removes a fault, or only one that has expired by a time.
func (h *Hub) removeFaultTx(tx *storage.Tx, c Caller, id TwinID, by time.Time) (bool, error) {
	r, err := faultTable.Get(tx, id.key())
	if errors.Is(err, storage.ErrNotFound) || err == nil && !by.IsZero() && r.Expires.After(by) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	tx.Add(counterFaults, -1)
	tx.OnCommit(func(uint64) { h.sessions.faults.remove(id) })
	return true, errors.Join(faultTable.Delete(tx, id.key()), appendChange(tx, c, changeFaultRemoved, id, 0, nil))
}

// Faults lists the faults in id order, of all identities. It needs StatusRead.
func (h *Hub) Faults(ctx context.Context, c Caller, cursor string, limit int) (list []Fault, next string, err error) {
	if err := h.authorize(ctx, c, opFaultRead, "*"); err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > faultsMost {
		limit = faultsMost
	}
	after, err := hex.DecodeString(cursor)
	if err != nil {
		return nil, "", errf(CodeArgumentInvalid, "the cursor is not one that this list gave; start again without a cursor")
	}
	list = []Fault{}
	err = h.view(ctx, "list faults", func(r storage.Reader) error {
		g := storage.Range{}
		if len(after) > 0 {
			g.After = after
		}
		var last storage.Key
		for item, err := range faultTable.Scan(r, g) {
			if err != nil {
				return err
			}
			if len(list) == limit {
				next = hex.EncodeToString(last)
				return nil
			}
			id, err := (TwinID{}).fromKey(item.Key)
			if err != nil {
				return err
			}
			list, last = append(list, item.Value.show(id)), append(storage.Key(nil), item.Key...)
		}
		return nil
	})
	return list, next, err
}

// runFaults ends connections that are as old as their fault allows, and
// faults that have expired.
func (h *Hub) runFaults(ctx context.Context, now time.Time) error {
	f := &h.sessions.faults
	if f.some.Load() == 0 {
		return nil
	}
	f.mu.RLock()
	list := make([]Fault, 0, len(f.list))
	for _, v := range f.list {
		list = append(list, v)
	}
	f.mu.RUnlock()
	for _, v := range list {
		if !now.Before(v.Expires) {
			err := h.update(ctx, "end fault", func(tx *storage.Tx) error {
				_, err := h.removeFaultTx(tx, hubCaller("expiry"), v.Target, now)
				return err
			})
			if err != nil {
				return err
			}
			h.log.Info("an injected fault has expired", slog.String("device", v.Target.String()))
			continue
		}
		if s := h.sessions.get(v.Target); s != nil && v.DisconnectEvery > 0 && now.Sub(s.since) >= v.DisconnectEvery {
			s.end(errf(CodeFaultInjected, "fault: the connection of %q is ended every %s on purpose", v.Target, v.DisconnectEvery))
		}
	}
	return nil
}

// doctorFaults warns of connections that are bad on purpose.
func (h *Hub) doctorFaults() Finding {
	n := h.sessions.faults.some.Load()
	if n == 0 {
		return Finding{"faults", "ok", "no fault is injected", ""}
	}
	return Finding{"faults", "warn", strconv.FormatInt(n, 10) + " connections are disturbed on purpose, by injected faults", "`muster fault list` shows them, `muster fault remove DEVICE` ends one; they end by themselves"}
}
