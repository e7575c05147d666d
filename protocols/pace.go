package protocols

import (
	"net/netip"
	"time"
)

// How fast connections from one address are taken. A whole fleet may stand
// behind one address, and come back at once: the rate is above what a small
// machine's handshakes allow, and the burst is a fleet. It bounds what a flood of
// connections costs, not what devices do.
const (
	connectsPerSecond = 1000
	connectsAtOnce    = 5000
)

// Who shows wrong credentials is slowed. Each refusal counts one up, each
// success one down, and so does each second. Above refusalsFree, connections from
// the address are taken one by one, and each refusal more makes the pause between
// them longer. The longest is short enough for a fleet behind the same address of
// which some devices have wrong keys, and long enough that their handshakes cost
// nothing: keys are too long to be guessed at any rate.
const (
	refusalsFree = 30
	refusalsMost = 90 // and so a minute after the last one, it is over
	refusalPause = 2 * time.Millisecond
)

// pacedMost is how long a connection may have to wait; it is closed at once when
// it would be longer.
const pacedMost = 10 * time.Second

// pacedAddresses bounds how many addresses are remembered.
const pacedAddresses = 1 << 16

// pace is what the gate remembers of one address.
type pace struct {
	due      time.Time // when the connections taken so far would all have come at the allowed rate
	refusals float64   // at the time of counted
	counted  time.Time
}

// count brings refusals up to date and adds n.
func (p *pace) count(n float64, now time.Time) {
	p.refusals = max(0, p.refusals-now.Sub(p.counted).Seconds())
	p.refusals = min(max(0, p.refusals+n), refusalsMost)
	p.counted = now
}

// backsOff reports whether the address is being slowed for its refusals.
func (p *pace) backsOff() bool { return p.refusals > refusalsFree }

// take returns how long the next connection has to wait, and whether it may.
func (p *pace) take(now time.Time) (wait time.Duration, ok bool) {
	p.count(0, now)
	each, atOnce := time.Second/connectsPerSecond, connectsAtOnce
	if p.backsOff() {
		each, atOnce = time.Duration((p.refusals-refusalsFree)*float64(refusalPause)), 1
	}
	due := p.due
	if due.Before(now) {
		due = now
	}
	due = due.Add(each)
	if wait = due.Sub(now) - time.Duration(atOnce)*each; wait > pacedMost {
		return 0, false
	}
	p.due = due
	return max(0, wait), true
}

// isIdle reports whether nothing would change if the address were forgotten.
func (p *pace) isIdle(now time.Time) bool {
	return !p.due.After(now) && p.refusals <= now.Sub(p.counted).Seconds()
}

// paces are the addresses that are remembered. They need the gate's lock.
type paces struct {
	of    map[netip.Prefix]*pace
	swept time.Time
}

func newPaces() paces { return paces{of: map[netip.Prefix]*pace{}} }

// get returns what is remembered of an address.
func (p *paces) get(from netip.Prefix, now time.Time) *pace {
	if a := p.of[from]; a != nil {
		return a
	}
	if len(p.of) >= pacedAddresses {
		p.sweep(now)
	}
	a := &pace{}
	p.of[from] = a
	return a
}

// sweep forgets those that are idle, at most once a second, and else anybody: a
// crowd of addresses is not to be slowed one by one, and must not fill the memory.
func (p *paces) sweep(now time.Time) {
	if now.Sub(p.swept) >= time.Second {
		p.swept = now
		for from, a := range p.of {
			if a.isIdle(now) {
				delete(p.of, from)
			}
		}
	}
	for from := range p.of {
		if len(p.of) < pacedAddresses {
			return
		}
		delete(p.of, from)
	}
}

// backingOff counts the addresses that are slowed for their refusals.
func (p *paces) backingOff(now time.Time) (n int64) {
	for _, a := range p.of {
		if a.count(0, now); a.backsOff() {
			n++
		}
	}
	return n
}
