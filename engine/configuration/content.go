package configuration

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/twin"
)

// Kind says whose desired properties a content is for.
type Kind uint8

// The kinds, by the member that holds the content.
const (
	OfDevice  Kind = iota // deviceContent: of devices
	OfModule              // moduleContent: of modules that a condition selects
	OfModules             // modulesContent: of the modules of edge devices, by name
)

// String returns the name of the kind's member.
func (k Kind) String() string {
	return [...]string{"deviceContent", "moduleContent", "modulesContent"}[k]
}

// edgeAgent is the module that every content of OfModules must have. With root as
// a key of it a content stands alone; without it is a layer over others.
const (
	edgeAgent = "$edgeAgent"
	root      = "properties.desired"
)

// Content is what a configuration sets.
type Content struct {
	kind     Kind
	settings map[string][]Setting // by module, "" of the other kinds; in order
	whole    map[string][]byte    // what properties.desired holds, of modules that have no other key
	layer    bool                 // of edge modules: only a layer over another one
}

// Error says what is wrong with a content.
type Error struct {
	Key      string // as it stands in the content, with its module's
	Reason   string
	Expected string
}

// Error is one sentence.
func (e *Error) Error() string {
	text := e.Reason
	if e.Key != "" {
		text = e.Key + ": " + text
	}
	if e.Expected != "" {
		text += "; expected " + e.Expected
	}
	return text
}

// Raw is a content as it is sent: JSON objects, nil where there is none.
type Raw struct{ Device, Module, Modules []byte }

// Parse reads a content. What it sets must be allowed by the limits of a twin's
// desired properties, also all of it together. The error is an *Error.
func Parse(raw Raw, limits twin.Limits) (*Content, error) {
	limits.Special = twin.RefuseSpecial
	var found []Kind
	for kind, text := range [...][]byte{raw.Device, raw.Module, raw.Modules} {
		if text != nil {
			found = append(found, Kind(kind))
		}
	}
	const expected = "exactly one of deviceContent, moduleContent and modulesContent"
	switch len(found) {
	case 0:
		return nil, &Error{Reason: "the content is missing", Expected: expected}
	case 1:
	default:
		return nil, &Error{Reason: "the content has " + found[0].String() + " and " + found[1].String(), Expected: expected}
	}
	c := &Content{kind: found[0], settings: map[string][]Setting{}, whole: map[string][]byte{}}
	p := parser{content: c, limits: limits}
	switch c.kind {
	case OfModules:
		return c, p.modules(raw.Modules)
	case OfModule:
		return c, p.target("", c.kind.String(), raw.Module)
	default:
		return c, p.target("", c.kind.String(), raw.Device)
	}
}

// parser fills a content.
type parser struct {
	content *Content
	limits  twin.Limits
}

// object splits a JSON object in its members.
func (p *parser) object(name string, text []byte) (map[string]json.RawMessage, error) {
	// The twin's parser also refuses what encoding/json lets pass, as a key that
	// is there twice.
	if _, err := twin.ParsePatch(text, 0); err != nil {
		return nil, asError(name, err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, &Error{Key: name, Reason: "it is not a JSON object"}
	}
	return members, nil
}

func asError(key string, err error) error {
	if e, ok := errors.AsType[*twin.InvalidError](err); ok {
		reason := e.Reason
		if e.Path != "" {
			reason = "at " + e.Path + ", " + reason
		}
		return &Error{Key: key, Reason: reason, Expected: e.Expected}
	}
	return &Error{Key: key, Reason: err.Error()}
}

func (p *parser) modules(text []byte) error {
	modules, err := p.object(OfModules.String(), text)
	if err != nil {
		return err
	}
	agent, ok := modules[edgeAgent]
	if !ok {
		return &Error{Key: OfModules.String(), Reason: "there is no " + edgeAgent + " in it", Expected: "a member " + edgeAgent + ": without it the device would not know its modules"}
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		if err := p.target(name, OfModules.String()+"."+name, modules[name]); err != nil {
			return err
		}
	}
	keys, err := p.object(edgeAgent, agent)
	_, whole := keys[root]
	p.content.layer = !whole
	return err
}

// target reads what one twin is to have.
func (p *parser) target(module, name string, text []byte) error {
	keys, err := p.object(name, text)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return &Error{Key: name, Reason: "nothing is in it", Expected: "a key such as " + root + ".path"}
	}
	var list []Setting
	of := map[string]string{} // the key that each path comes from
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		settings, err := p.settings(name+"."+key, key, keys[key])
		if err != nil {
			return err
		}
		for _, s := range settings {
			if other, ok := of[s.Path]; ok {
				return overlaps(name, key, other, s.Path)
			}
			of[s.Path] = key
		}
		list = append(list, settings...)
		if key == root && len(keys) == 1 {
			p.content.whole[module] = keys[key]
		}
	}
	slices.SortFunc(list, func(a, b Setting) int { return strings.Compare(a.Path, b.Path) })
	for _, s := range list {
		for path := range above(s.Path) {
			if key, ok := of[path]; ok && key != of[s.Path] && slices.ContainsFunc(list, func(o Setting) bool { return o.Path == path && o.conflicts(s) }) {
				return overlaps(name, key, of[s.Path], s.Path)
			}
		}
	}
	if err := p.check(name, patch(list)); err != nil { // together they may be too large
		return err
	}
	p.content.settings[module] = list
	return nil
}

func overlaps(name, a, b, path string) error {
	return &Error{Key: name, Reason: a + " and " + b + " both say what is at " + path, Expected: "one of them"}
}

// above yields the paths above a path, the longest first.
func above(path string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := strings.LastIndexByte(path, '.'); i > 0; i = strings.LastIndexByte(path[:i], '.') {
			if !yield(path[:i]) {
				return
			}
		}
	}
}

// settings reads the value of one key.
func (p *parser) settings(name, key string, value json.RawMessage) ([]Setting, error) {
	const expected = root + ", or it with a path, as in " + root + ".motor.speed"
	path, ok := strings.CutPrefix(key, root)
	switch {
	case !ok, path != "" && path[0] != '.':
		return nil, &Error{Key: name, Reason: "this is no place in desired properties", Expected: expected}
	case path == "" && value[0] != '{':
		return nil, &Error{Key: name, Reason: "its value is no object", Expected: "a JSON object, as all desired properties are"}
	case path == "":
		if err := p.check(name, value); err != nil {
			return nil, err
		}
	default:
		path = path[1:]
		if slices.Contains(strings.Split(path, "."), "") {
			return nil, &Error{Key: name, Reason: "a name in the path is empty", Expected: expected}
		}
		value = patch([]Setting{{path, string(value)}})
		if err := p.check(name, value); err != nil {
			return nil, err
		}
	}
	read, err := twin.ParsePatch(value, 0)
	if err != nil {
		return nil, asError(name, err)
	}
	if read.Len() == 0 {
		return nil, nil // properties.desired is {}
	}
	list := flatten(nil, "", read.View())
	for _, s := range list {
		if slices.Contains(strings.Split(s.Path, "."), "") {
			return nil, &Error{Key: name, Reason: "a name is empty, at " + strconv.Quote(s.Path), Expected: "names of one character at least"}
		}
	}
	return list, nil
}

// check tries a patch on an empty twin.
func (p *parser) check(name string, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	read, err := twin.ParsePatch(text, 0)
	if err == nil {
		_, _, err = twin.New(twin.Desired).Merge(read, time.Time{}, p.limits)
	}
	if err != nil {
		return asError(name, err)
	}
	return nil
}

// Kind returns whose the content is.
func (c *Content) Kind() Kind { return c.kind }

// Settings returns what a twin is to have: module is empty but for OfModules.
// The list is sorted by path and not to be changed.
func (c *Content) Settings(module string) []Setting { return c.settings[module] }

// Modules returns the modules that a content of OfModules names, sorted.
func (c *Content) Modules() []string {
	if c.kind != OfModules {
		return nil
	}
	return slices.Sorted(maps.Keys(c.settings))
}

// Names reports whether a content of OfModules names a module.
func (c *Content) Names(module string) bool {
	_, ok := c.settings[module]
	return ok && c.kind == OfModules
}

// Whole returns all desired properties of each module, when the content of
// OfModules gives them all: nothing of it is a layer. It is an *Error otherwise.
func (c *Content) Whole() (map[string][]byte, error) {
	if c.kind != OfModules {
		return nil, &Error{Key: c.kind.String(), Reason: "it can't be applied to one device", Expected: OfModules.String()}
	}
	for _, module := range c.Modules() {
		if c.whole[module] == nil {
			return nil, &Error{Key: OfModules.String() + "." + module, Reason: "it is a layer over something else", Expected: root + " as its only key"}
		}
	}
	return c.whole, nil
}
