package protocols

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestPaceOfAddress follows one address through a storm and through wrong
// credentials.
func TestPaceOfAddress(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	var p pace
	var longest time.Duration
	for range connectsAtOnce {
		if wait, ok := p.take(start); !ok || wait > 0 {
			t.Fatalf("within the burst: waits %s, %t", wait, ok)
		}
	}
	taken := 0
	for ; ; taken++ {
		wait, ok := p.take(start)
		if !ok {
			break
		}
		longest = max(longest, wait)
	}
	if want := int(pacedMost.Seconds() * connectsPerSecond); taken != want || longest != pacedMost {
		t.Errorf("above the burst %d waited, %s at most; want %d and %s", taken, longest, want, pacedMost)
	}
	now := start.Add(pacedMost + connectsAtOnce/connectsPerSecond*time.Second)
	if wait, ok := p.take(now); !ok || wait > 0 {
		t.Errorf("after the storm: waits %s, %t", wait, ok)
	}

	now = now.Add(time.Hour)
	for range refusalsFree {
		p.count(1, now)
	}
	if wait, _ := p.take(now); wait > 0 || p.backsOff() {
		t.Errorf("some refusals are no reason to wait %s", wait)
	}
	for range 1000 {
		p.count(1, now)
	}
	first, _ := p.take(now)
	second, _ := p.take(now)
	if each := (refusalsMost - refusalsFree) * refusalPause; second-first != each {
		t.Errorf("while it backs off: waits %s and %s, want %s between them", first, second, each)
	}
	for range refusalsMost - refusalsFree {
		p.count(-1, now)
	}
	if p.backsOff() {
		t.Error("successes must end it")
	}
	p.count(refusalsMost, now)
	p.count(0, now.Add(refusalsMost*time.Second))
	if p.refusals > 0 {
		t.Errorf("%g refusals are still held against it", p.refusals)
	}
}

// TestPacesAreBounded asks for more addresses than are remembered.
func TestPacesAreBounded(t *testing.T) {
	t.Parallel()
	p, now := newPaces(), time.Unix(1_800_000_000, 0)
	for i := range uint32(pacedAddresses + 100) {
		p.get(netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i))), 32), now).count(10, now)
	}
	if len(p.of) > pacedAddresses {
		t.Errorf("%d addresses are remembered", len(p.of))
	}
	p.get(netip.Prefix{}, now.Add(time.Minute))
	if len(p.of) != 1 {
		t.Errorf("%d addresses are remembered after a minute, want 1", len(p.of))
	}
}

// TestGateSlowsGuessing has one address show wrong credentials: its connections
// wait, those of others and of a proxy don't.
func TestGateSlowsGuessing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newAdmission(100, 100)
		slowed := 0
		for range 2 * refusalsFree {
			k := admit(t, g, dial("192.0.2.1"))
			_, _ = k.Read(nil) // until it is let in
			if k.Refused() {
				slowed++
			}
			_ = k.Close()
		}
		if slowed != refusalsFree {
			t.Errorf("%d connections were told to go, want %d", slowed, refusalsFree)
		}
		began := time.Now()
		for range 10 {
			k := admit(t, g, dial("192.0.2.1"))
			_, _ = k.Read(nil)
			_ = k.Close()
		}
		if took, least := time.Since(began), 9*(refusalsFree-2)*refusalPause; took < least || took > 2*least {
			t.Errorf("ten connections of the address took %s, want about %s", took, least)
		}
		began = time.Now()
		proxied := g.admit(dial("192.0.2.1"), false)
		for _, k := range []*knock{admit(t, g, dial("192.0.2.2")), proxied} {
			if _, _ = k.Read(nil); time.Since(began) > 0 {
				t.Errorf("another waited %s", time.Since(began))
			}
			_ = k.Close()
		}
		if f := g.snapshot(); f.backingOff != 1 || f.refused != 2*refusalsFree || f.paced == 0 {
			t.Errorf("figures: got %+v", f)
		}
		time.Sleep(2 * time.Minute)
		if f := g.snapshot(); f.backingOff != 0 || f.waiting != 0 {
			t.Errorf("two minutes later: got %+v", f)
		}
	})
}
