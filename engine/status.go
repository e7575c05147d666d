package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/storage"
)

// Info describes the hub itself.
type Info struct {
	Name    string // first host name
	Hosts   []string
	Version string
	Epoch   string
	// EpochNumber counts the hub's epochs, from 1 on.
	EpochNumber uint32
	Limits      Profile
	Started     time.Time
	NotReady    []string // why it is not ready; empty when it is
	Paused      bool     // restored from a backup and not resumed: what it would send by itself is held back
}

// Info returns what the hub is; any caller may ask.
func (h *Hub) Info(context.Context) Info {
	i := Info{
		Name: h.about.hosts[0], Hosts: h.about.hosts, Version: h.about.version, Epoch: h.db.Epoch().ID, EpochNumber: h.db.Epoch().Ordinal, Limits: h.limits.Profile,
		Started: h.about.started, NotReady: []string{}, Paused: h.db.Paused(),
	}
	if err := h.Ready(); err != nil {
		i.NotReady = append(i.NotReady, AsError(err).Message)
	}
	return i
}

// Paused reports whether the hub was restored from a backup and not resumed:
// what is queued in it is held back.
func (h *Hub) Paused() bool { return h.db.Paused() }

// Statistics counts identities and sessions.
type Statistics struct {
	Devices   int64
	Enabled   int64
	Disabled  int64
	Modules   int64
	Connected int64 // device sessions, without modules
	Sessions  int64 // all sessions
}

// Statistics returns the counts. It needs RegistryRead.
func (h *Hub) Statistics(ctx context.Context, c Caller) (Statistics, error) {
	if err := h.authorize(ctx, c, opStatistics, "*"); err != nil {
		return Statistics{}, err
	}
	return h.statistics(ctx)
}

// Status is what the status page shows.
type Status struct {
	Info       Info
	Statistics Statistics
	Totals     Totals
	Storage    storage.Stats
	Recent     []Change
	Connected  []SessionInfo
}

// Totals counts what happened since the hub started.
type Totals struct {
	Messages                                                         int64 // device-to-cloud messages taken
	MessageBytes                                                     int64
	ReportedUpdates                                                  int64
	DesiredUpdates                                                   int64
	TwinReads                                                        int64
	Methods                                                          int64
	MethodsFailed                                                    int64
	MethodsQueued                                                    int64 // calls that were queued
	MethodsUncertain                                                 int64 // queued calls whose outcome nobody knows
	MethodsExpired                                                   int64 // queued calls whose deadline passed first
	LateAnswers                                                      int64 // method answers that nobody waited for
	Connects                                                         int64
	ConnectsRefused                                                  int64
	AuditLost                                                        int64 // audit entries that could not be stored
	MessagesSent, MessagesDelivered, MessagesCompleted, MessagesDead int64 // cloud-to-device
	PresenceLost                                                     int64 // presence changes that could not be stored
	SchemaViolations                                                 int64 // changes of twins that the declared schema does not allow, stored with a warning
	SchemaRejected                                                   int64 // changes of twins that were refused for that
	SessionsReplaced                                                 int64
	Faults                                                           int64 // injected faults in force: a gauge
	FaultLost                                                        int64 // messages lost on purpose
}

// Totals returns the counters; it is cheap and safe from any goroutine.
func (h *Hub) Totals() Totals {
	t := h.count.totals()
	t.MethodsQueued, t.MethodsUncertain, t.MethodsExpired = h.methods.queue.queued.Load(), h.methods.queue.uncertain.Load(), h.methods.queue.expired.Load()
	t.Faults, t.FaultLost = h.sessions.faults.some.Load(), h.sessions.faults.lost.Load()
	return t
}

// SessionInfo describes a live session.
type SessionInfo struct {
	ID       TwinID
	Since    time.Time
	Activity time.Time
	Protocol string
	Address  string
	Product  string
	ModelID  string
}

// Change is an entry of the change log as the status page shows it.
type Change struct {
	Position  uint64
	Time      time.Time
	Kind      string // "identity.created", "twin.reported", "session.connected", ...
	ID        TwinID
	Principal string
	Cause     string
	Version   int64
	Data      json.RawMessage // the patch, or what the kind documents

	Twin        json.RawMessage // as in Event
	TwinVersion int64
}

// Status returns a snapshot for the status page. It needs StatusRead.
func (h *Hub) Status(ctx context.Context, c Caller) (Status, error) {
	if err := h.authorize(ctx, c, opStatusRead, "*"); err != nil {
		return Status{}, err
	}
	statistics, err := h.statistics(ctx)
	if err != nil {
		return Status{}, err
	}
	recent, err := h.recentChanges(ctx, statusChanges)
	return Status{
		Info: h.Info(ctx), Statistics: statistics, Totals: h.Totals(), Storage: h.db.Stats(),
		Recent: recent, Connected: h.connected(statusSessions),
	}, err
}

// Finding is one result of Doctor.
type Finding struct {
	Check string
	Level string // "ok", "warn", "fail"
	Text  string
	Next  string
}

// Doctor looks at the hub from inside: clock, disk, store, audit, limits. It
// needs HubManage.
func (h *Hub) Doctor(ctx context.Context, c Caller) ([]Finding, error) {
	if err := h.authorize(ctx, c, opDoctor, "*"); err != nil {
		return nil, err
	}
	return append(append(h.doctorStore(), h.doctorFaults(), h.doctorWebhooks(ctx), h.doctorBackup(time.Now()), h.doctorPaused(), h.doctorFiles(), h.doctorQueries()), append(h.doctorPatterns(ctx, time.Now()), h.doctorAudit(ctx)...)...), nil
}

// How much a status answer holds at most.
const (
	statusChanges  = 50
	statusSessions = 200
)

func (h *Hub) statistics(ctx context.Context) (Statistics, error) {
	var s Statistics
	err := h.view(ctx, "count identities", func(r storage.Reader) error {
		for name, into := range map[string]*int64{counterDevices: &s.Devices, counterDisabled: &s.Disabled, counterModules: &s.Modules} {
			n, err := storage.Counter(r, name)
			if err != nil {
				return err
			}
			*into = n
		}
		return nil
	})
	s.Enabled = s.Devices - s.Disabled
	s.Connected, s.Sessions = h.sessions.len()
	return s, err
}

// recentChanges returns the newest entries of the change log, newest first.
func (h *Hub) recentChanges(ctx context.Context, limit uint64) ([]Change, error) {
	list := make([]Change, 0, limit)
	err := h.view(ctx, "read changes", func(r storage.Reader) error {
		first, last, err := changeLog.Bounds(r)
		if err != nil || last == 0 {
			return err
		}
		start := max(first, last+1-min(last, limit))
		for e, err := range changeLog.Read(r, start-1) {
			if err != nil {
				return err
			}
			c, err := decodeChange(e)
			if err != nil {
				return err
			}
			list = append(list, c)
		}
		slices.Reverse(list)
		return nil
	})
	return list, err
}

// connected describes the first live sessions in id order.
func (h *Hub) connected(limit int) []SessionInfo {
	var live []*Session
	h.sessions.each(func(s *Session) { live = append(live, s) })
	slices.SortFunc(live, func(a, b *Session) int {
		return cmp.Or(strings.Compare(a.id.DeviceID, b.id.DeviceID), strings.Compare(a.id.ModuleID, b.id.ModuleID))
	})
	list := []SessionInfo{}
	for _, s := range live[:min(len(live), limit)] {
		list = append(list, SessionInfo{
			ID: s.id, Since: s.since, Activity: time.Unix(0, s.activity.Load()).UTC(), Protocol: s.connection.Protocol,
			Address: s.connection.Address, Product: s.connection.Product, ModelID: s.connection.ModelID,
		})
	}
	return list
}

func (h *Hub) doctorStore() []Finding { return storeFindings(h.db.Stats(), h.db.Health()) }

func storeFindings(s storage.Stats, health error) []Finding {
	const mend = "stop the hub, copy the data directory, run `muster repair`"
	damaged := storeTrouble(health) == "damaged"
	store := Finding{"store", "ok", "the store takes writes; " + strconv.FormatUint(s.Commits, 10) + " transactions since the start", ""}
	if health != nil {
		store = Finding{"store", "fail", health.Error(), "free disk space, correct the clock, or restart the hub after a disk failure; then run `muster doctor` again"}
	}
	disk := Finding{"disk", "ok", fmt.Sprintf("%d MiB free, %d MiB are kept in reserve", s.FreeBytes>>20, s.ReserveBytes>>20), ""}
	if s.FreeBytes < 2*s.ReserveBytes {
		disk.Level, disk.Next = "warn", "free disk space: below the reserve the hub takes no writes"
	}
	scan := Finding{"damage", "ok", fmt.Sprintf("the background scan has checked %d tables and found no damage", s.ScannedTables), ""}
	if damaged {
		store.Next = mend // no restart helps
		scan = Finding{"damage", "fail", "something that was read is damaged: see the line on the store", mend}
	}
	if s.DamagedTables > 0 {
		scan = Finding{"damage", "fail", fmt.Sprintf("%d of the store's tables are damaged", s.DamagedTables), mend}
	}
	return []Finding{store, disk, scan}
}

func (h *Hub) doctorAudit(ctx context.Context) []Finding {
	audit := Finding{"audit", "ok", "no audit entry was lost since the start", ""}
	if n := h.count.auditLost.Load(); n > 0 {
		audit = Finding{"audit", "warn", fmt.Sprintf("%d audit entries of refused or method calls were lost since the start", n), "look for a client that is refused again and again, or for a store that takes no writes"}
	}
	var bounds Finding
	err := h.view(ctx, "read audit", func(r storage.Reader) error {
		first, last, err := auditLog.Bounds(r)
		bounds = Finding{"audit chain", "ok", fmt.Sprintf("entries %d to %d", first, last), "`muster audit verify` recomputes every hash"}
		return err
	})
	if err != nil {
		bounds = Finding{"audit chain", "fail", err.Error(), "stop the hub and run `muster repair`"}
	}
	return []Finding{audit, bounds}
}

// counters are the hub's totals since its start.
type counters struct {
	messages, messageBytes, reportedUpdates, desiredUpdates, twinReads           atomic.Int64
	methods, methodsFailed, lateAnswers                                          atomic.Int64
	connects, connectsRefused, sessionsReplaced                                  atomic.Int64
	deviceboundSent, deviceboundDelivered, deviceboundCompleted, deviceboundDead atomic.Int64
	auditLost, presenceLost                                                      atomic.Int64
	schemaViolations, schemaRejected                                             atomic.Int64
}

func (c *counters) totals() Totals {
	return Totals{
		Messages: c.messages.Load(), MessageBytes: c.messageBytes.Load(), ReportedUpdates: c.reportedUpdates.Load(),
		DesiredUpdates: c.desiredUpdates.Load(), TwinReads: c.twinReads.Load(), Methods: c.methods.Load(),
		MethodsFailed: c.methodsFailed.Load(), LateAnswers: c.lateAnswers.Load(), Connects: c.connects.Load(),
		ConnectsRefused: c.connectsRefused.Load(), SessionsReplaced: c.sessionsReplaced.Load(),
		MessagesSent: c.deviceboundSent.Load(), MessagesDelivered: c.deviceboundDelivered.Load(),
		MessagesCompleted: c.deviceboundCompleted.Load(), MessagesDead: c.deviceboundDead.Load(),
		AuditLost: c.auditLost.Load(), PresenceLost: c.presenceLost.Load(),
		SchemaViolations: c.schemaViolations.Load(), SchemaRejected: c.schemaRejected.Load(),
	}
}
