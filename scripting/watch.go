package scripting

import (
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

// watchEvery is how often busy workers are looked at. Killing one takes about a
// millisecond more.
const watchEvery = 4 * time.Millisecond

// watch looks at busy workers until the pool is closed: at their time, by the
// wall clock, and their memory. While none is busy it sleeps.
func (p *Pool) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.closing:
			return
		case <-p.wake:
		}
		ticker.Reset(watchEvery)
		for busy := true; busy; {
			select {
			case <-p.closing:
				return
			case <-ticker.C:
			}
			busy = false
			for _, w := range p.alive() {
				busy = w.look(time.Now()) || busy
			}
			if busy {
				continue
			}
			p.asleep.Store(true)
			for _, w := range p.alive() { // one may have begun before it could know
				busy = w.since.Load() != 0 || busy
			}
			if busy {
				p.asleep.Store(false)
			}
		}
	}
}

// alive are the workers that have not ended.
func (p *Pool) alive() []*process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.watching)
}

// rouse wakes the watcher, if it sleeps.
func (p *Pool) rouse() {
	if p.asleep.Load() && p.asleep.CompareAndSwap(true, false) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// look kills a worker that has used up its time or memory. It reports whether the
// worker is busy.
func (p *process) look(now time.Time) bool {
	number, since := p.number.Load(), p.since.Load()
	if since == 0 {
		return false
	}
	memory := p.usage.memory()
	if number != p.seen.number {
		p.seen = watched{number: number, processor: p.usage.processor(), memory: memory}
	}
	if memory > memoryStale {
		p.high.Store(true)
	}
	took := time.Duration(now.UnixNano() - since)
	why := killReason("")
	switch starting := number == 1; {
	case starting && took < startMost:
	case starting:
		why = killStart
	case memory > pattern.MaxWorker && p.seen.memory > memoryStale:
		why = killStale
	case memory > pattern.MaxWorker:
		why = killMemory
	case took >= pattern.MaxTime && p.usage.processor()-p.seen.processor < pattern.MaxTime/starvedShare:
		why = killStarved
	case took >= pattern.MaxTime:
		why = killTime
	}
	if why != "" && p.number.Load() == number && p.since.Load() == since {
		p.kill(number, why)
	}
	return true
}
