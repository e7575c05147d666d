package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// device is a fake device. It is part of the world outside: a crash of the hub
// does not touch it, except that it connects anew.
type device struct {
	lab     *lab
	id      string
	online  bool // it has a network
	greeted bool // it has a connection, and has read its desired properties
	told    bool // its desired properties have changed
	session int  // counts connections

	methods  map[string]method
	watchers []watcher
	calls    []received
	inside   int            // of methods that are being performed
	later    []func() error // what those do to the connection, once they have answered
}

// method performs a direct method.
type method func(payload json.RawMessage) (reply, error)

// reply is how a device answers a call.
type reply struct {
	status  int
	payload json.RawMessage
	after   time.Duration
	never   bool
}

// watcher is told when the value at a path of the desired properties changes.
type watcher struct {
	path string
	seen string // the value that it was told of last
	do   func(value json.RawMessage, version int64) error
}

// received is a call that a device got.
type received struct {
	method  string
	payload json.RawMessage
}

// addDevice makes a device with an identity. Its sections are plain JSON.
func (l *lab) addDevice(id string, sections [3]json.RawMessage, online bool) (*device, error) {
	if len(l.devices) >= devicesMost {
		return nil, fmt.Errorf("a test has at most %d devices", devicesMost)
	}
	if l.hub.memory.Twins[id] != nil {
		return nil, fmt.Errorf("there is a device %q already", id)
	}
	i := newIdentity(id)
	for n, text := range sections {
		if len(text) == 0 || string(text) == "null" || string(text) == "[]" {
			continue
		}
		if err := i.merge(n, text, l.now); err != nil {
			return nil, fmt.Errorf("the %s of %q: %w", section(n), id, err)
		}
	}
	i.Connected = online
	l.hub.memory.Twins[id] = i
	d := &device{lab: l, id: id, online: online, greeted: online, session: 1, methods: map[string]method{}}
	l.devices = append(l.devices, d)
	return d, nil
}

// identity is what the hub knows of the device; nil when that is nothing.
func (d *device) identity() *identity { return d.lab.hub.memory.Twins[d.id] }

// invoke has the device perform a method.
func (d *device) invoke(name string, payload json.RawMessage) (reply, error) {
	d.calls = append(d.calls, received{name, payload})
	d.lab.effect("%s: method %s %s", d.id, name, canonical(payload))
	do := d.methods[name]
	if do == nil {
		payload, err := json.Marshal(map[string]string{"message": fmt.Sprintf("the device of the test has no on_method(%q)", name)})
		return reply{status: 501, payload: payload}, err
	}
	d.inside++
	r, err := do(payload)
	d.inside--
	if r.after > 0 || r.never { // the answer is not out when the connection changes
		err = errors.Join(err, d.flush())
	}
	return r, err
}

// flush does to the connection what methods wanted done.
func (d *device) flush() error {
	list := d.later
	d.later = nil
	for _, do := range list {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// connect and disconnect are how its network changes.
func (d *device) connect() error { return d.network(true) }

func (d *device) disconnect() error { return d.network(false) }

func (d *device) network(on bool) error {
	if d.inside > 0 {
		d.later = append(d.later, func() error { return d.network(on) })
		return nil
	}
	if d.online == on {
		return nil
	}
	d.online, d.greeted = on, false
	d.session++
	if on {
		return d.welcome()
	}
	return d.leave()
}

// welcome has the hub see that the device is connected.
func (d *device) welcome() error {
	i := d.identity()
	if i == nil || i.Status != "enabled" || !d.online || i.Connected {
		return nil
	}
	i.Connected = true
	return d.lab.hub.changed(i)
}

// leave has the hub see that the device is gone.
func (d *device) leave() error {
	d.greeted = false
	i := d.identity()
	if i == nil || !i.Connected {
		return nil
	}
	i.Connected = false
	d.session++
	hub := d.lab.hub
	if err := hub.hungUp(d.id); err != nil {
		return err
	}
	if hub != d.lab.hub { // it crashed, and looks by itself
		return nil
	}
	return hub.changed(i)
}

// refused is a device whose identity does not let it in any more.
func (d *device) refused() error { return d.leave() }

// greet is what a device does on a new connection, and when it is told of a
// change: it looks at its desired properties.
func (d *device) greet() error {
	d.greeted, d.told = d.online, false
	i := d.identity()
	if i == nil || !i.Connected {
		return nil
	}
	return d.look(i.sections[desired])
}

func (d *device) look(s *twin.Section) error {
	for n := range d.watchers {
		w := &d.watchers[n]
		value := json.RawMessage(s.Plain(nil))
		if w.path != "" {
			v, ok := s.Get(w.path)
			if !ok {
				v = json.RawMessage("null")
			}
			value = v
		}
		if c := canonical(value); c != w.seen {
			w.seen = c
			if err := w.do(value, s.Version()); err != nil {
				return err
			}
		}
	}
	return nil
}

// watch adds a watcher. It is told of what it finds only if that is not what
// was there when the test made it.
func (d *device) watch(path string, do func(value json.RawMessage, version int64) error) {
	w := watcher{path: path, do: do}
	if i := d.identity(); i != nil {
		v := json.RawMessage(i.sections[desired].Plain(nil))
		if path != "" {
			var ok bool
			if v, ok = i.sections[desired].Get(path); !ok {
				v = json.RawMessage("null")
			}
		}
		w.seen = canonical(v)
	}
	d.watchers = append(d.watchers, w)
}

// errOffline says that a device has no connection over which to report.
var errOffline = errors.New("the device is offline: it can report when it is back (d:online)")

// report has the device report properties.
func (d *device) report(patch json.RawMessage) error {
	i := d.identity()
	if i == nil || !i.Connected || !d.online {
		return errOffline
	}
	if err := i.merge(reported, patch, d.lab.now); err != nil {
		return err
	}
	return d.lab.hub.changed(i)
}

// changedBy has somebody else change the tags or the desired properties.
func (d *device) changedBy(n int, patch json.RawMessage) error {
	i := d.identity()
	if i == nil {
		return fmt.Errorf("the device %q has no identity", d.id)
	}
	if err := i.merge(n, patch, d.lab.now); err != nil {
		return err
	}
	d.told = n == desired && d.online
	return d.lab.hub.changed(i)
}

// methodsCalled lists what the device was asked, in order.
func (d *device) methodsCalled() []string {
	list := make([]string, len(d.calls))
	for n, c := range d.calls {
		list[n] = c.method
	}
	return list
}

// revealed is a payload with the values of its secrets in their place.
func (l *lab) revealed(payload json.RawMessage, device string) (json.RawMessage, error) {
	if len(payload) == 0 {
		return nil, nil
	}
	var v any
	if err := json.Unmarshal(payload, &v); err != nil {
		return nil, err
	}
	var missing []string
	var walk func(v any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			if name, ok := v["$secret"].(string); ok && len(v) == 1 {
				for _, full := range []string{name, name + "/" + device} {
					if value, ok := l.secrets[full]; ok {
						return value
					}
				}
				missing = append(missing, name)
				return nil
			}
			for key, inner := range v {
				v[key] = walk(inner)
			}
		case []any:
			for n, inner := range v {
				v[n] = walk(inner)
			}
		}
		return v
	}
	v = walk(v)
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("the hub has no secret %q; a test gives it with t:secret", missing[0])
	}
	return json.Marshal(v)
}
