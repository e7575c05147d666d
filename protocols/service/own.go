package service

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/muster-hub/muster/engine"
)

// Page sizes of Muster's own lists.
const (
	pageDefault  = 100
	pageMost     = 1000
	connectedMax = 200 // sessions in a status
	recentMax    = 50  // changes in a status
)

// Listener is an address where the hub accepts connections.
type Listener struct {
	Kind    string `json:"kind" doc:"https, mqtts or http."`
	Address string `json:"address" doc:"HOST:PORT as bound."`
}

type hubDocument struct {
	Name        string     `json:"name" doc:"The first host name."`
	Hosts       []string   `json:"hosts" doc:"Names that tokens may carry."`
	Version     string     `json:"version"`
	Epoch       string     `json:"epoch" doc:"Changes when a backup is restored."`
	Limits      string     `json:"limits" enum:"default,azure"`
	StartedTime time.Time  `json:"startedTime"`
	Ready       bool       `json:"ready"`
	NotReady    []string   `json:"notReady" doc:"What is missing."`
	Paused      bool       `json:"paused" doc:"Restored from a backup and not resumed: what is queued is held back."`
	Listeners   []Listener `json:"listeners,omitempty"`
}

func (c *call) showHub(i engine.Info) hubDocument {
	d := hubDocument{
		Name: i.Name, Hosts: i.Hosts, Version: i.Version, Epoch: i.Epoch, Limits: string(i.Limits),
		StartedTime: i.Started.UTC(), Ready: len(i.NotReady) == 0, NotReady: i.NotReady, Paused: i.Paused,
	}
	if d.NotReady == nil {
		d.NotReady = []string{}
	}
	if c.listeners != nil {
		d.Listeners = c.listeners()
	}
	return d
}

func getHub(c *call) (answer, error) {
	return answer{body: c.showHub(c.hub.Info(c.r.Context()))}, nil
}

type statusDocument struct {
	Hub       hubDocument        `json:"hub"`
	Devices   deviceCounts       `json:"devices"`
	Modules   int64              `json:"modules"`
	Sessions  int64              `json:"sessions" doc:"Live connections of devices and modules."`
	Runs      map[string]int64   `json:"runs" doc:"Runs of patterns that have not ended, by state."`
	Rates     map[string]float64 `json:"rates" doc:"Per second over the last seconds: telemetry, twin, methods."`
	Totals    map[string]any     `json:"totals" doc:"Counters since the hub started."`
	Storage   map[string]any     `json:"storage" doc:"Counters and gauges of the store; durations in seconds."`
	Recent    []changeDocument   `json:"recent" doc:"The newest changes, at most 50."`
	Connected []sessionDocument  `json:"connected" doc:"Live sessions, at most 200."`
}

type deviceCounts struct {
	Total     int64 `json:"total"`
	Enabled   int64 `json:"enabled"`
	Disabled  int64 `json:"disabled"`
	Connected int64 `json:"connected"`
}

type changeDocument struct {
	Position  uint64          `json:"position"`
	Time      time.Time       `json:"time"`
	Kind      string          `json:"kind" doc:"identity.created, twin.reported, session.connected and so on."`
	ID        string          `json:"id" doc:"DEVICE or DEVICE/MODULE."`
	Principal string          `json:"principal"`
	Cause     string          `json:"cause,omitempty"`
	Version   int64           `json:"version,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
}

type sessionDocument struct {
	ID       string    `json:"id" doc:"DEVICE or DEVICE/MODULE."`
	Since    time.Time `json:"since"`
	Protocol string    `json:"protocol"`
	Activity time.Time `json:"activity"`
	Address  string    `json:"address,omitempty"`
	Product  string    `json:"product,omitempty"`
	ModelID  string    `json:"modelId,omitempty"`
}

func getStatus(c *call) (answer, error) {
	s, err := c.hub.Status(c.r.Context(), c.caller)
	if err != nil {
		return answer{}, err
	}
	n := s.Statistics
	d := statusDocument{
		Hub:     c.showHub(s.Info),
		Devices: deviceCounts{n.Devices, n.Enabled, n.Disabled, n.Connected}, Modules: n.Modules, Sessions: n.Sessions, Runs: map[string]int64{},
		Rates: c.rates.at(time.Now(), s.Totals), Totals: plain(s.Totals), Storage: plain(s.Storage),
		Recent:    show(s.Recent[:min(len(s.Recent), recentMax)], showChange),
		Connected: show(s.Connected[:min(len(s.Connected), connectedMax)], showSession),
	}
	for state, count := range c.hub.RunStats().Active {
		d.Runs[string(state)] = count
	}
	return answer{body: d}, nil
}

func showChange(c engine.Change) changeDocument {
	return changeDocument{c.Position, c.Time.UTC(), c.Kind, c.ID.String(), c.Principal, c.Cause, c.Version, c.Data}
}

func showSession(s engine.SessionInfo) sessionDocument {
	return sessionDocument{s.ID.String(), s.Since.UTC(), s.Protocol, s.Activity.UTC(), s.Address, s.Product, s.ModelID}
}

// plain returns a flat struct of counters with JSON's spelling of names. A
// duration becomes seconds. The store's own type stays unnamed here: edges do
// not know the storage package.
func plain(v any) map[string]any {
	m := map[string]any{}
	for field, value := range reflect.ValueOf(v).Fields() {
		if !field.IsExported() {
			continue
		}
		name := []rune(field.Name)
		name[0] = unicode.ToLower(name[0])
		if d, ok := value.Interface().(time.Duration); ok {
			m[string(name)+"Seconds"] = d.Seconds()
			continue
		}
		m[string(name)] = value.Interface()
	}
	return m
}

// page is one part of a list.
type page[T any] struct {
	Items  []T    `json:"items"`
	Cursor string `json:"cursor" doc:"Send it as ?cursor= for what follows; empty at the end."`
}

// deviceRecord is a device in Muster's own lists: IoT Hub's document and the
// times that every record of Muster has.
type deviceRecord struct {
	deviceDocument
	Created time.Time `json:"createdTime,omitzero"`
	Updated time.Time `json:"updatedTime,omitzero"`
}

type moduleRecord struct {
	moduleDocument
	Created time.Time `json:"createdTime,omitzero"`
	Updated time.Time `json:"updatedTime,omitzero"`
}

func showDeviceRecord(i engine.Identity) deviceRecord {
	return deviceRecord{showDevice(i), i.Created.UTC(), i.Updated.UTC()}
}

func showModuleRecord(i engine.Identity) moduleRecord {
	return moduleRecord{showModule(i), i.Created.UTC(), i.Updated.UTC()}
}

func pageDevices(c *call) (answer, error) {
	prefix := c.query.Get("prefix")
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	after, err := parseCursor(c.query.Get("cursor"), "devices", prefix)
	if err != nil {
		return answer{}, err
	}
	list, next, err := c.hub.Devices(c.r.Context(), c.caller, prefix, after, limit)
	return answer{body: page[deviceRecord]{show(list, showDeviceRecord), makeCursor("devices", prefix, next)}}, err
}

func pageModules(c *call) (answer, error) {
	list, err := c.hub.Modules(c.r.Context(), c.caller, c.params[0])
	return answer{body: page[moduleRecord]{Items: show(list, showModuleRecord)}}, err
}

// cursorMost bounds a cursor: one that holds the longest path of a twin fits.
const cursorMost = 16 << 10

// makeCursor wraps a position, with what it belongs to, so that it is not
// used on another list by mistake. It needs no signature: the position grants
// nothing that the caller could not ask for by other means.
func makeCursor(list, filter, position string) string {
	if position == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(list + "\x00" + filter + "\x00" + position))
}

func parseCursor(text, list, filter string) (string, error) {
	if text == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	parts := strings.Split(string(raw), "\x00")
	if err != nil || len(text) > cursorMost || len(parts) != 3 || parts[0] != list || parts[2] == "" {
		return "", invalid("the cursor is not one that this list gave; start again without a cursor")
	}
	if parts[1] != filter {
		return "", invalid("the cursor belongs to a list with another filter; start again without a cursor")
	}
	return parts[2], nil
}

type connectionString struct {
	ConnectionString string `json:"connectionString" doc:"Holds a key: treat it as a password."`
}

func (c *call) slot() (engine.KeySlot, error) {
	text := c.query.Get("key")
	if text == "" {
		return engine.KeyPrimary, nil
	}
	slot, err := parseSlot("the query parameter key", text)
	if err == nil && slot == engine.KeyBoth {
		return "", invalid("the query parameter key is both; expected primary or secondary")
	}
	return slot, err
}

func getConnectionString(c *call) (answer, error) {
	slot, err := c.slot()
	if err != nil {
		return answer{}, err
	}
	s, err := c.hub.IdentityConnectionString(c.r.Context(), c.caller, c.target(), slot)
	return answer{body: connectionString{s.String()}}, err
}

type historyDocument struct {
	ID        string          `json:"id" doc:"Names this entry in a diff."`
	Section   string          `json:"section" enum:"identity,tags,desired,reported"`
	Version   int64           `json:"version"`
	Time      time.Time       `json:"time"`
	Principal string          `json:"principal"`
	Cause     string          `json:"cause,omitempty"`
	RequestID string          `json:"requestId,omitempty"`
	Patch     json.RawMessage `json:"patch,omitempty" doc:"Merge patch that was applied."`
	Undo      json.RawMessage `json:"undo,omitempty" doc:"Merge patch that takes it back."`
}

func showHistory(h engine.HistoryEntry) historyDocument {
	return historyDocument{h.ID, string(h.Section), h.Version, h.Time.UTC(), h.Principal, h.Cause, h.RequestID, h.Patch, h.Undo}
}

func getHistory(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	section := engine.HistorySection(c.query.Get("section"))
	switch section {
	case "", engine.HistoryIdentity, engine.HistoryTags, engine.HistoryDesired, engine.HistoryReported:
	default:
		return answer{}, invalid("the query parameter section is not known; expected identity, tags, desired or reported")
	}
	list, next, err := c.hub.TwinHistory(c.r.Context(), c.caller, c.target(), section, c.query.Get("cursor"), limit)
	return answer{body: page[historyDocument]{show(list, showHistory), next}}, err
}

type difference struct {
	Path   string          `json:"path" doc:"Begins with tags, desired or reported."`
	Before json.RawMessage `json:"before,omitempty" doc:"Absent when there was none."`
	After  json.RawMessage `json:"after,omitempty" doc:"Absent when there is none."`
}

type differences struct {
	Changes []difference `json:"changes"`
}

func getDifference(c *call) (answer, error) {
	from, to := c.query.Get("from"), c.query.Get("to")
	if from == "" {
		return answer{}, &engine.Error{Code: engine.CodeArgumentNull, Message: "the query parameter from is missing; expected a history id, an RFC 3339 time or now"}
	}
	if to == "" {
		to = "now"
	}
	list, err := c.hub.TwinDifference(c.r.Context(), c.caller, c.target(), from, to)
	d := differences{Changes: make([]difference, 0, len(list))}
	for _, x := range list {
		d.Changes = append(d.Changes, difference{x.Path, x.Before, x.After})
	}
	return answer{body: d}, err
}

type findingDocument struct {
	Check string `json:"check"`
	Level string `json:"level" enum:"ok,warn,fail"`
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"`
}

type findings struct {
	Findings []findingDocument `json:"findings"`
}

func getDoctor(c *call) (answer, error) {
	list, err := c.hub.Doctor(c.r.Context(), c.caller)
	return answer{body: findings{show(list, func(f engine.Finding) findingDocument {
		return findingDocument{f.Check, f.Level, f.Text, f.Next}
	})}}, err
}

func getOpenAPI(c *call) (answer, error) {
	return answer{body: json.RawMessage(c.openapi)}, nil
}
