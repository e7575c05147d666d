package engine

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/twin"
	"github.com/muster-hub/muster/storage"
)

// followers are what takes each change of the hub: events, queries, webhooks.
type followers struct {
	events   *feed
	queries  *queries
	webhooks *webhooks
}

// querySources are the sources whose rows are columns: devices and modules.
const querySources = 2

// columnMemory is what columns may take when Options do not say.
const columnMemory = 256 << 20

// queries keeps the columns in step with the store. Each transaction that
// changes a row hands over what changed in it, computed while it was prepared;
// when its group is visible, and before any caller of the group is answered,
// the columns take all of them in commit order. So whoever was told of a change
// finds it with the next query.
type queries struct {
	hub     *Hub
	made    string                       // Options.Build
	pending [querySources][]query.Change // of the group that is being published; the committer's alone
	lists   resultLists
	slots   chan struct{} // of queries that run
	count   queryCounters
	stop    context.CancelFunc
	running sync.WaitGroup
	ready   chan struct{} // closed once the columns hold everything
	done    atomic.Int64  // rows built so far
	total   atomic.Int64  // rows there are to build
	read    func()        // Options.columnsRead

	taking atomic.Uint64 // the newest group that the columns have, or are being given
	taken  atomic.Uint64 // the newest that they have

	mu      sync.Mutex // of what changes the columns, so that they see one change after the other
	columns [querySources]*query.Columns
	live    bool // the columns hold everything; until then changes are noted in dirty
	dirty   [querySources]map[string]struct{}

	following *liveQueries // every change of the columns goes through them
}

func newQueries(memory int64, limits *Limits) *queries {
	if memory <= 0 {
		memory = columnMemory
	}
	q := &queries{ready: make(chan struct{}), slots: make(chan struct{}, queriesAtOnce()), lists: newResultLists()}
	// There are far fewer modules than devices, if any.
	q.columns[query.Devices] = query.NewColumns(query.ColumnOptions{Memory: memory / 4 * 3, ID: rowPaths.deviceID, Outside: outsidePaths()})
	q.columns[query.Modules] = query.NewColumns(query.ColumnOptions{Memory: memory / 4, Outside: outsidePaths()})
	q.following = newLiveQueries(q, limits)
	for i := range q.dirty {
		q.dirty[i] = map[string]struct{}{}
	}
	return q
}

// rowSeparator divides the device's id from the module's in a row's id: no id
// holds it, and it sorts before all that one may hold.
const rowSeparator = "\x00"

// row returns the identity's place: its source and the id of its row there.
func (id TwinID) row() (query.Source, string) {
	if id.ModuleID == "" {
		return query.Devices, id.DeviceID
	}
	return query.Modules, id.DeviceID + rowSeparator + id.ModuleID
}

func twinIDOfRow(row string) TwinID {
	d, m, _ := strings.Cut(row, rowSeparator)
	return TwinID{d, m}
}

// changeTx hands a change of an identity's row over to the columns, for when
// the transaction is durable. The fields are those of this attempt.
func (q *queries) changeTx(tx *storage.Tx, id TwinID, c query.Change) {
	source, row := id.row()
	c.ID = row
	tx.OnCommit(func(uint64) { q.pending[source] = append(q.pending[source], c) })
}

// sectionTx hands over what a change of a section changed.
func (q *queries) sectionTx(tx *storage.Tx, id TwinID, k twin.Kind, before, after *twin.Section) {
	var f rowFields
	f.sectionChange(k, before, after)
	q.changeTx(tx, id, query.Change{Fields: f.list})
}

// activityTx hands over when an identity without a session was active last. Of one
// that has a session by then, that is known better.
func (q *queries) activityTx(tx *storage.Tx, id TwinID, t time.Time) {
	source, row := id.row()
	var f rowFields
	f.time(rowPaths.lastActivityTime, t)
	tx.OnCommit(func(uint64) {
		if q.hub.sessions.get(id) == nil {
			q.pending[source] = append(q.pending[source], query.Change{ID: row, Fields: f.list})
		}
	})
}

// published takes the changes of a group. The committer calls it.
func (q *queries) published(seq uint64) {
	q.taking.Store(seq)
	defer q.taken.Store(seq)
	if len(q.pending[query.Devices])+len(q.pending[query.Modules]) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for source := range query.Source(querySources) {
		changes := q.pending[source]
		if len(changes) == 0 {
			continue
		}
		q.takeLocked(seq, source, changes)
		clear(changes)
		q.pending[source] = changes[:0]
	}
}

// rowNotes are the notes of rows as of a group.
type rowNotes struct {
	seq  uint64
	list []uint32 // nil: they were not there all at one moment
}

// notes returns the notes of rows of one source, once queries are ready.
func (q *queries) notes(rows []string) (n rowNotes) {
	if len(rows) == 0 {
		return n
	}
	n.seq = q.taken.Load()
	source, _ := twinIDOfRow(rows[0]).row()
	list := q.columns[source].Notes(rows)
	if q.taking.Load() == n.seq {
		n.list = list
	}
	return n
}

// in returns the notes of some of the rows, if a snapshot has them as they are here; else
// those of rows of which nothing is known.
func (n rowNotes) in(r storage.Reader, from, to int) []uint32 {
	if n.list == nil || storage.SequenceOf(r) != n.seq {
		return make([]uint32, to-from)
	}
	return n.list[from:to]
}

// takeLocked gives changes to the columns, and to who follows them. seq is 0 of
// a change of presence, which comes between two commits.
func (q *queries) takeLocked(seq uint64, source query.Source, changes []query.Change) {
	if !q.live {
		for i := range changes {
			q.dirty[source][changes[i].ID] = struct{}{}
		}
		return
	}
	for i := range changes {
		// Presence is not part of what was stored. It is looked up here, where
		// nothing can come between.
		if c := &changes[i]; c.Replace && !c.Gone {
			f := rowFields{list: c.Fields}
			p, connected := q.hub.presenceNow(twinIDOfRow(c.ID))
			f.presence(p, connected)
			c.Fields = f.list
		}
	}
	q.following.sets[source].Apply(seq, time.Now(), changes)
}

// sessionChanged takes over that a session began or ended; which of both, or
// whether another one has come, is looked up. It returns when the columns have it.
func (q *queries) sessionChanged(s *Session) {
	source, row := s.id.row()
	q.mu.Lock()
	defer q.mu.Unlock()
	p, connected := q.hub.presenceNow(s.id)
	if !connected {
		p = s.presence(s.since)
	}
	var f rowFields
	f.presence(p, connected)
	q.amendLocked(source, row, f.list)
}

// takeActivity brings the columns of lastActivityTime up to date: each message
// moves it, and only queries that ask for it care.
func (q *queries) takeActivity() {
	var changes [querySources][]query.Change
	note := func(id TwinID, t time.Time) {
		source, row := id.row()
		var f rowFields
		f.time(rowPaths.lastActivityTime, t)
		if v, ok := q.columns[source].Value(row, rowPaths.lastActivityTime); ok {
			// A session that has ended since may have been active later.
			if before, err := time.Parse(twinTimeLayout, v.Text()); err == nil && !t.After(before) {
				return
			}
		}
		if v, ok := q.columns[source].Value(row, rowPaths.deviceID); !ok || v.Kind() != query.Undefined {
			changes[source] = append(changes[source], query.Change{ID: row, Fields: f.list})
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.live {
		return
	}
	for id, t := range q.hub.sessions.activity.snapshot() {
		if q.hub.sessions.get(id) == nil {
			note(id, t)
		}
	}
	q.hub.sessions.each(func(s *Session) {
		if now := s.activity.Load(); now != s.queried {
			s.queried = now
			note(s.id, time.Unix(0, now))
		}
	})
	for source := range query.Source(querySources) {
		if len(changes[source]) > 0 {
			q.takeLocked(0, source, changes[source])
		}
	}
}

// amendLocked changes fields of a row, unless there is none: then its identity
// was deleted, or is just being made and gets them with the rest.
func (q *queries) amendLocked(source query.Source, row string, fields []query.Field) {
	if q.live {
		if v, ok := q.columns[source].Value(row, rowPaths.deviceID); ok && v.Kind() == query.Undefined {
			return
		}
	}
	q.takeLocked(0, source, []query.Change{{ID: row, Fields: fields}})
}
