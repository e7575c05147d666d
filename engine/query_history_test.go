package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
)

// TestQueryHistory lets writers change devices at random while readers query
// them, and checks each answer against what was acknowledged before its query
// began and what was begun before it ended. MUSTER_QUERY_PAIRS says how many
// pairs of an answer and a device are checked.
func TestQueryHistory(t *testing.T) {
	pairs := int64(20_000)
	if s := os.Getenv("MUSTER_QUERY_PAIRS"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		pairs = n
	}
	const restarts = 2
	dir := t.TempDir()
	w := newHistoryWorld(16 * 5)
	for run := range restarts + 1 {
		h := openAt(t, dir)
		w.restarted()
		w.check(t, h, "right after a start", func(historyState) bool { return true }, "SELECT * FROM devices")
		w.work(t, h, int64(run+1)*pairs/(restarts+1))
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if run%2 == 1 {
			killed(t, dir) // the columns are built, else those that were kept are taken
		}
	}
	if w.checked.Load() < pairs {
		t.Errorf("%d pairs were checked, expected %d", w.checked.Load(), pairs)
	}
	t.Logf("%d pairs, %d queries, %d changes", w.checked.Load(), w.queries.Load(), w.changes.Load())
}

func openAt(t *testing.T, dir string) *engine.Hub {
	t.Helper()
	return enginetest.New(t, enginetest.Dir(dir))
}

// historyState is what a device may look like. The numbers only grow, so that
// each state is told from each other.
type historyState struct {
	Exists, Connected       bool
	Tags, Desired, Reported int
}

// historyDevice is written by one goroutine. states[i] is what change i made of
// it; those up to acked are acknowledged, those up to begun may show.
type historyDevice struct {
	id    string
	mu    sync.Mutex
	base  int // number of states[0]
	state []historyState
	acked int
	begun int

	session *enginetest.Device
}

type historyWorld struct {
	devices                   []*historyDevice
	checked, queries, changes atomic.Int64
}

func newHistoryWorld(devices int) *historyWorld {
	w := &historyWorld{}
	for i := range devices {
		w.devices = append(w.devices, &historyDevice{id: fmt.Sprintf("device-%02d", i), state: []historyState{{}}})
	}
	return w
}

// restarted says that no session outlived the hub.
func (w *historyWorld) restarted() {
	for _, d := range w.devices {
		d.session = nil
		last := d.state[len(d.state)-1]
		last.Connected = false
		d.base, d.acked, d.begun, d.state = 0, 0, 0, []historyState{last}
	}
}

// work changes and queries until so many pairs are checked.
func (w *historyWorld) work(t *testing.T, h *engine.Hub, pairs int64) {
	var wg sync.WaitGroup
	// Ten pairs a change: an answer that nothing could have changed shows little.
	done := func() bool { return w.checked.Load() >= pairs && w.changes.Load() >= pairs/10 || t.Failed() }
	const writers = 16
	for i := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for !done() {
				w.devices[i+writers*r.IntN(len(w.devices)/writers)].change(t, h, r)
				w.changes.Add(1)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), 2))
			for !done() {
				w.query(t, h, r)
			}
		})
	}
	wg.Wait()
}

// query asks for the devices that meet a condition.
func (w *historyWorld) query(t *testing.T, h *engine.Hub, r *rand.Rand) {
	d := w.devices[r.IntN(len(w.devices))]
	d.mu.Lock()
	s := d.state[len(d.state)-1]
	d.mu.Unlock()
	const rows = "SELECT deviceId, connectionState AS c, tags.n AS t, properties.desired.n AS d, properties.reported.n AS r FROM devices"
	switch r.IntN(6) {
	case 0:
		w.check(t, h, "all", func(historyState) bool { return true }, rows)
	case 1:
		w.check(t, h, "whole twins", func(s historyState) bool { return s.Connected }, "SELECT * FROM devices WHERE connectionState = 'Connected'")
	case 2:
		w.check(t, h, "tags", func(o historyState) bool { return o.Tags != 0 && o.Tags >= s.Tags }, fmt.Sprintf(rows+" WHERE tags.n >= %d", s.Tags))
	case 3:
		w.check(t, h, "reported", func(o historyState) bool { return o.Reported == s.Reported && o.Reported != 0 }, fmt.Sprintf(rows+" WHERE properties.reported.n = %d", s.Reported))
	case 4:
		w.check(t, h, "desired", func(o historyState) bool { return o.Desired == 0 || o.Desired > s.Desired }, fmt.Sprintf(rows+" WHERE NOT IS_DEFINED(properties.desired.n) OR properties.desired.n > %d", s.Desired))
	case 5:
		w.check(t, h, "disconnected", func(o historyState) bool { return !o.Connected && o.Tags > 0 }, rows+" WHERE connectionState != 'Connected' AND IS_DEFINED(tags.n)")
	}
}

// check runs a query and holds its rows against the devices' histories.
func (w *historyWorld) check(t *testing.T, h *engine.Hub, what string, meets func(historyState) bool, text string) {
	low := make([]int, len(w.devices))
	for i, d := range w.devices {
		d.mu.Lock()
		low[i] = d.acked
		d.mu.Unlock()
	}
	w.queries.Add(1)
	whole := false
	seen := map[string]historyState{}
	for token := ""; ; {
		page, err := h.Query(context.Background(), enginetest.Owner(), engine.QueryRequest{Text: text, Max: 25, Token: token})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		for _, twin := range page.Twins {
			whole = true
			seen[twin.Identity.DeviceID] = stateOfTwin(t, twin)
		}
		for _, row := range page.Rows {
			id, s := stateOfRow(t, row)
			if _, twice := seen[id]; twice {
				t.Errorf("%s: the row of %s came twice", text, id)
			}
			seen[id] = s
		}
		if token = page.Token; token == "" {
			break
		}
	}
	for i, d := range w.devices {
		d.mu.Lock()
		from, to := low[i]-d.base, d.begun-d.base
		if from < 0 {
			d.mu.Unlock()
			continue // more changes during the query than are kept
		}
		possible := append([]historyState(nil), d.state[from:to+1]...)
		d.mu.Unlock()
		w.checked.Add(1)
		got, found := seen[d.id]
		must, may := true, false
		for _, s := range possible {
			must, may = must && s.Exists && meets(s), may || s.Exists && meets(s)
		}
		switch {
		case found && !may:
			t.Errorf("%s (%s): %s is in the result, and never could be: %+v of %+v", what, text, d.id, got, possible)
		case !found && must:
			t.Errorf("%s (%s): %s is missing, and always was to be there: %+v", what, text, d.id, possible)
		case found && !possibly(possible, got, whole):
			t.Errorf("%s (%s): %s shows %+v, which it was not between the query's begin and end: %+v", what, text, d.id, got, possible)
		}
	}
}

// possibly reports whether a device was ever in a state. What memory knows of
// its connection is read a little later than the rest of a whole twin.
func possibly(list []historyState, s historyState, whole bool) bool {
	for _, one := range list {
		if whole {
			one.Connected = s.Connected
		}
		if one == s {
			return true
		}
	}
	return false
}

func stateOfRow(t *testing.T, row []byte) (string, historyState) {
	var v struct {
		DeviceID string `json:"deviceId"`
		C        string
		T, D, R  int
	}
	if err := json.Unmarshal(row, &v); err != nil {
		t.Errorf("row %s: %v", row, err)
	}
	return v.DeviceID, historyState{Exists: true, Connected: v.C == "Connected", Tags: v.T, Desired: v.D, Reported: v.R}
}

func stateOfTwin(t *testing.T, twin engine.Twin) historyState {
	s := historyState{Exists: true, Connected: twin.Identity.Connected}
	for _, of := range []struct {
		into *int
		get  func(string) ([]byte, bool)
	}{{&s.Tags, twin.Tags.Get}, {&s.Desired, twin.Desired.Get}, {&s.Reported, twin.Reported.Get}} {
		if text, ok := of.get("n"); ok {
			if err := json.Unmarshal(text, of.into); err != nil {
				t.Error(err)
			}
		}
	}
	return s
}

// begin notes that a change is under way, and returns what notes its end.
func (d *historyDevice) begin(next historyState) (acknowledged func()) {
	const kept = 256
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = append(d.state, next)
	d.begun++
	if len(d.state) > 2*kept {
		d.base += len(d.state) - kept
		d.state = append([]historyState(nil), d.state[len(d.state)-kept:]...)
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.acked = d.begun
	}
}

// change makes one random change.
func (d *historyDevice) change(t *testing.T, h *engine.Hub, r *rand.Rand) {
	ctx, owner, id := context.Background(), enginetest.Owner(), engine.TwinID{DeviceID: d.id}
	s := d.state[len(d.state)-1] // only this goroutine changes it
	if !s.Exists {
		acknowledged := d.begin(historyState{Exists: true})
		if _, err := h.CreateIdentity(ctx, owner, engine.Identity{DeviceID: d.id}); err != nil {
			t.Errorf("create: %v", err)
		}
		acknowledged()
		return
	}
	next := s
	var do func() error
	switch n := r.IntN(20); {
	case n < 5:
		next.Tags++
		do = func() error {
			_, err := h.PatchTwin(ctx, owner, id, engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d}`, next.Tags)}, engine.IfMatch{})
			return err
		}
	case n < 8:
		next.Tags++
		next.Desired++
		do = func() error {
			_, err := h.ReplaceTwin(ctx, owner, id, engine.TwinUpdate{Tags: fmt.Appendf(nil, `{"n":%d,"o":{"p":[1]}}`, next.Tags), Desired: fmt.Appendf(nil, `{"n":%d}`, next.Desired)}, engine.IfMatch{})
			return err
		}
	case n < 9:
		next.Tags = 0
		do = func() error {
			_, err := h.PatchTwin(ctx, owner, id, engine.TwinUpdate{Tags: []byte(`{"n":null,"o":null}`)}, engine.IfMatch{})
			return err
		}
	case n < 15 && d.session != nil:
		next.Reported++
		do = func() error {
			_, err := d.session.Session.PatchReported(ctx, fmt.Appendf(nil, `{"n":%d,"same":"text"}`, next.Reported), -1)
			return err
		}
	case n < 17 && d.session != nil:
		next.Connected = false
		do = func() error { d.session.Session.Close(errors.New("enough")); d.session = nil; return nil }
	case n < 19 || s.Connected:
		next.Connected = true
		do = func() (err error) { d.session, err = connectExisting(h, id); return err }
	default:
		next = historyState{}
		do = func() error {
			d.session = nil
			return h.DeleteIdentity(ctx, owner, id, engine.IfMatch{Present: true, Any: true})
		}
	}
	acknowledged := d.begin(next)
	if err := do(); err != nil {
		t.Errorf("a change of %s to %+v: %v", d.id, next, err)
	}
	acknowledged()
}

func connectExisting(h *engine.Hub, id engine.TwinID) (*enginetest.Device, error) {
	ctx := context.Background()
	identity, err := h.Identity(ctx, enginetest.Owner(), id)
	if err != nil {
		return nil, err
	}
	key, err := identity.Authentication.PrimaryKey.Bytes()
	if err != nil {
		return nil, err
	}
	token := auth.SignToken(enginetest.HostName+"/devices/"+id.DeviceID, key, "", time.Now().Add(time.Hour))
	return enginetest.ConnectWith(ctx, h, id, token, false)
}
