package engine

import (
	"hash/maphash"
	"sync"

	"golang.org/x/time/rate"
)

// sessionTable holds the live sessions and who waits for one. It is sharded:
// every packet toward a device looks here.
type sessionTable struct {
	seed     maphash.Seed
	shards   [64]sessionShard
	faults   faultSet      // what disturbs sessions on purpose
	activity activityLog   // of identities that work without one
	refused  *rate.Limiter // bounds how many refusals are stored
}

type sessionShard struct {
	mu      sync.Mutex
	live    map[TwinID]*Session
	waiting map[TwinID]*arrival
	endings uint64 // how often something ended a session here, or would have
}

// arrival is what method calls to one identity wait for.
type arrival struct {
	happened chan struct{} // closed when the identity's session may take methods
	waiters  int
}

func newSessionTable() *sessionTable {
	t := &sessionTable{seed: maphash.MakeSeed(), refused: rate.NewLimiter(refusedPerSecond, refusedBurst)}
	for i := range t.shards {
		t.shards[i].live = map[TwinID]*Session{}
		t.shards[i].waiting = map[TwinID]*arrival{}
	}
	return t
}

// shard returns where the sessions of a device and of its modules are.
func (t *sessionTable) shard(deviceID string) *sessionShard {
	return &t.shards[maphash.String(t.seed, deviceID)%uint64(len(t.shards))]
}

func (t *sessionTable) get(id TwinID) *Session {
	sh := t.shard(id.DeviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.live[id]
}

// put makes s the identity's session and returns the one that it replaces, and
// what endings returns at that moment.
func (t *sessionTable) put(s *Session) (old *Session, endings uint64) {
	sh := t.shard(s.id.DeviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old = sh.live[s.id]
	sh.live[s.id] = s
	sh.wake(s.id)
	return old, sh.endings
}

// endings counts what ends sessions of the device, and of some others. While it
// is what it was when a credential was checked, no change of the identity has
// become visible that the check did not see.
func (t *sessionTable) endings(deviceID string) uint64 {
	sh := t.shard(deviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.endings
}

// end returns the identity's session, which a change of the identity ends.
// Also one that is just beginning hears of it, by endings.
func (t *sessionTable) end(id TwinID) *Session {
	sh := t.shard(id.DeviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.endings++
	return sh.live[id]
}

// remove takes s out unless a newer session has its place; it reports whether
// it did.
func (t *sessionTable) remove(s *Session) bool {
	sh := t.shard(s.id.DeviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.live[s.id] != s {
		return false
	}
	delete(sh.live, s.id)
	return true
}

// each calls f for every live session, without holding a lock during f.
func (t *sessionTable) each(f func(*Session)) {
	var list []*Session
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		list = list[:0]
		for _, s := range sh.live {
			list = append(list, s)
		}
		sh.mu.Unlock()
		for _, s := range list {
			f(s)
		}
	}
}

// endDevice is end for the sessions of a device and of its modules.
func (t *sessionTable) endDevice(deviceID string) (list []*Session) {
	sh := t.shard(deviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.endings++
	for id, s := range sh.live {
		if id.DeviceID == deviceID {
			list = append(list, s)
		}
	}
	return list
}

func (t *sessionTable) len() (devices, all int64) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		all += int64(len(sh.live))
		for id := range sh.live {
			if id.ModuleID == "" {
				devices++
			}
		}
		sh.mu.Unlock()
	}
	return devices, all
}

// arrived wakes whoever waits for the identity to take methods.
func (t *sessionTable) arrived(id TwinID) {
	sh := t.shard(id.DeviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.wake(id)
}

func (sh *sessionShard) wake(id TwinID) {
	if a, ok := sh.waiting[id]; ok {
		close(a.happened)
		delete(sh.waiting, id)
	}
}

// arrival returns what is closed at the identity's next arrival. Who stops
// waiting before must say so with gone, so that nothing stays behind.
func (t *sessionTable) arrival(id TwinID) *arrival {
	sh := t.shard(id.DeviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	a, ok := sh.waiting[id]
	if !ok {
		a = &arrival{happened: make(chan struct{})}
		sh.waiting[id] = a
	}
	a.waiters++
	return a
}

func (t *sessionTable) gone(id TwinID, a *arrival) {
	sh := t.shard(id.DeviceID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a.waiters--; a.waiters == 0 && sh.waiting[id] == a {
		delete(sh.waiting, id)
	}
}
