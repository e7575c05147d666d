package simulator

import (
	"encoding/json"
	"fmt"

	"github.com/muster-hub/muster/protocols/client"
)

// Trouble is what is special about a device.
type Trouble string

// The troubles. Most devices are steady.
const (
	Steady      Trouble = "steady"
	Cold        Trouble = "cold"         // in a cold room: low temperature, battery falls faster
	Flaky       Trouble = "flaky"        // loses its network now and then
	Slow        Trouble = "slow"         // takes seconds to answer a method
	OldFirmware Trouble = "old firmware" // waits for an update
)

// Firmware versions of the demo.
const (
	currentFirmware = "2.0.0"
	oldFirmware     = "1.8.2"
)

// profile is what a device is, and stays.
type profile struct {
	id      string
	kind    string
	model   string
	serial  string
	site    site
	trouble Trouble
	warm    float64 // usual temperature, degrees Celsius
}

type site struct {
	name     string
	country  string
	lat, lon float64
}

func sites() []site {
	return []site{
		{"lyon", "FR", 45.764, 4.8357},
		{"turin", "IT", 45.0703, 7.6869},
		{"porto", "PT", 41.1579, -8.6291},
		{"oslo", "NO", 59.9139, 10.7522},
	}
}

// profileOf lays out the i-th of n devices: kinds and sites in turn, and
// trouble at fixed places, so that a fleet always tells the same story.
func profileOf(prefix string, i, n int) profile {
	kinds := []struct {
		name, model string
		warm        float64
	}{
		{"pump", "PX-200", 41}, {"valve", "VT-15", 24}, {"meter", "EM-3", 29}, {"sensor", "TH-1", 21}, {"gateway", "GW-7", 47},
	}
	k := kinds[i%len(kinds)]
	s := sites()[i/len(kinds)%len(sites())]
	return profile{
		id:      fmt.Sprintf("%s%s-%03d", prefix, k.name, i+1),
		kind:    k.name,
		model:   k.model,
		serial:  fmt.Sprintf("SN%06d", 100000+7919*(i+1)%900000),
		site:    s,
		trouble: troubleOf(i, n),
		warm:    k.warm,
	}
}

// troubleOf gives about one device in seven something special; a fleet of
// fifty has three cold, two flaky, one slow and one with old firmware.
func troubleOf(i, n int) Trouble {
	switch i % 50 {
	case 8, 23, 38:
		return Cold
	case 11, 31:
		return Flaky
	case 17:
		return Slow
	case 4:
		return OldFirmware
	}
	if n < 10 && i == n-1 {
		return Flaky // small fleets want some trouble too
	}
	return Steady
}

// identity is the bulk item that makes the device with its tags and first
// desired properties.
func (p *profile) identity() (client.BulkItem, error) {
	tags, err := json.Marshal(map[string]any{
		DemoTag:    true,
		"site":     p.site.name,
		"country":  p.site.country,
		"kind":     p.kind,
		"location": map[string]float64{"lat": p.site.lat, "lon": p.site.lon},
	})
	if err != nil {
		return client.BulkItem{}, err
	}
	return client.BulkItem{ID: p.id, ImportMode: "create", Status: "enabled", Tags: tags}, nil
}
