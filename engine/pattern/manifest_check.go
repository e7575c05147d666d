package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
	"github.com/muster-hub/muster/engine/schema"
	"github.com/muster-hub/muster/engine/wording"
)

// Bounds of a manifest.
const (
	MaxManifest = 64 << 10 // bytes of its JSON form

	nameMost      = 64
	titleMost     = 128
	summaryMost   = 1024
	paramsMost    = 64
	needsMost     = 100
	triggersMost  = 20
	predicateMost = 8192 // bytes
	devicesMost   = 10_000_000
	faultsMost    = 20
)

// ParseManifest reads a manifest from its JSON form, sets its defaults and
// checks it. Members that it doesn't have are errors. An empty object stands for
// an empty list, since Lua does not tell the two apart. The error is
// [rollout.Faults], whose paths begin at the manifest: "triggers[0].cron".
func ParseManifest(text []byte) (*Manifest, error) {
	switch {
	case len(text) > MaxManifest:
		return nil, rollout.Faults{{Path: "manifest", Reason: fmt.Sprintf("has %d bytes", len(text)), Expected: fmt.Sprintf("at most %d", MaxManifest)}}
	case deeper(text, MaxDepth):
		return nil, rollout.Faults{{Path: "manifest", Reason: "nests too deep", Expected: fmt.Sprintf("at most %d", MaxDepth)}}
	}
	m := &Manifest{}
	if err := rollout.Decode(emptyLists(text), "", m); err != nil {
		if list, ok := errors.AsType[rollout.Faults](err); ok {
			for i := range list {
				if list[i].Path = strings.TrimPrefix(list[i].Path, "."); list[i].Path == "" {
					list[i].Path = "manifest"
				}
			}
		}
		return nil, err
	}
	m.SetDefaults()
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// emptyLists leaves out members that are an empty object where a list is
// expected, in a manifest and its rollout.
func emptyLists(text []byte) []byte {
	clear := func(object map[string]json.RawMessage, names ...string) (changed bool) {
		for _, name := range names {
			if string(bytes.Join(bytes.Fields(object[name]), nil)) == "{}" {
				delete(object, name)
				changed = true
			}
		}
		return changed
	}
	whole := members(text)
	changed := clear(whole, "required", "needs", "triggers")
	if policy := members(whole["rollout"]); clear(policy, "waves", "windows", "pause", "abort") {
		whole["rollout"], changed = marshal(policy), true
	}
	if !changed {
		return text
	}
	return marshal(whole)
}

// SetDefaults sets what was left out: the API, the scope and the conflicts.
func (m *Manifest) SetDefaults() {
	if m.API == 0 {
		m.API = API
	}
	if m.Scope == "" {
		m.Scope = ScopeDevice
	}
	if m.Conflicts == "" {
		m.Conflicts = ConflictQueue
	}
}

// manifestCheck is a manifest that is being looked at.
type manifestCheck struct {
	m      *Manifest
	faults rollout.Faults
	// unknown says that something is wrong with the parameters' schemas, so that
	// nothing can be said of what is given for them.
	unknown bool
}

func (c *manifestCheck) wrong(path, reason, expected string) {
	if len(c.faults) < faultsMost {
		c.faults = append(c.faults, rollout.Fault{Path: path, Reason: reason, Expected: expected})
	}
}

// Validate says what is wrong with a manifest that has its defaults; nil:
// nothing. The error is [rollout.Faults] with all that is wrong.
func (m *Manifest) Validate() error {
	c := &manifestCheck{m: m}
	c.head()
	c.params()
	c.needs()
	c.reach()
	c.rollout()
	c.triggers()
	if len(c.faults) == 0 {
		return nil
	}
	return c.faults
}

func (c *manifestCheck) head() {
	m := c.m
	c.name()
	if m.Version == "" {
		c.wrong("version", "is missing", `a semantic version such as "1.0.0"`)
	} else if err := CheckVersion(m.Version); err != nil {
		reason, expected, _ := strings.Cut(err.Error(), "; expected ")
		c.wrong("version", reason, expected)
	}
	if m.API != API {
		c.wrong("api", "is "+strconv.Itoa(m.API), strconv.Itoa(API)+", the host API of this Muster")
	}
	c.text("title", m.Title, titleMost, false)
	c.text("summary", m.Summary, summaryMost, true)
	c.text("author", m.Author, titleMost, false)
	if t := time.Duration(m.Timeout); t != 0 && (t < time.Second || t > MaxRun) {
		c.wrong("timeout", "is "+m.Timeout.String(), "1s to "+rollout.Duration(MaxRun).String())
	}
	if m.Most < 0 || m.Most > devicesMost {
		c.wrong("most", "is "+strconv.Itoa(m.Most), fmt.Sprintf("0 (any number) to %d devices", devicesMost))
	}
	among(c, "scope", m.Scope, ScopeDevice, ScopeFleet)
	among(c, "conflicts", m.Conflicts, ConflictQueue, ConflictSkip, ConflictReject, ConflictReplace, ConflictShare)
}

func among[T ~string](c *manifestCheck, path string, word T, words ...T) {
	if slices.Contains(words, word) {
		return
	}
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	c.wrong(path, "is "+quote(string(word)), wording.OneOf(list))
}

// reservedNames have a meaning of their own where the name of a pattern may
// stand.
func reservedNames() []string { return []string{"all", "counts", "keys", "new", "pattern", "secrets"} }

func (c *manifestCheck) name() {
	const expected = `small letters and digits, with single dashes between: "firmware-update"`
	switch name := c.m.Name; {
	case name == "":
		c.wrong("name", "is missing", expected)
	case len(name) > nameMost:
		c.wrong("name", fmt.Sprintf("has %d characters", len(name)), fmt.Sprintf("at most %d", nameMost))
	case !isKebab(name):
		c.wrong("name", "is "+quote(name), expected)
	case slices.Contains(reservedNames(), name):
		c.wrong("name", "is "+quote(name)+", which has a meaning of its own", "another name")
	}
}

// isKebab reports whether a text is of small letters and digits, with single
// dashes between them, and begins with a letter.
func isKebab(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z':
		case c >= '0' && c <= '9' && i > 0:
		case c == '-' && i > 0 && i < len(s)-1 && s[i-1] != '-':
		default:
			return false
		}
	}
	return s != ""
}

// isIdentifier reports whether a text is a name in Lua and in predicates.
func isIdentifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// isSecretName reports whether a text may be the name of a secret.
func isSecretName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && (i == 0 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return s != "" && len(s) <= nameMost
}

func (c *manifestCheck) text(path, text string, most int, lines bool) {
	bad := func(r rune) bool { return unicode.IsControl(r) && (!lines || r != '\n') }
	switch n := utf8.RuneCountInString(text); {
	case n > most:
		c.wrong(path, fmt.Sprintf("has %d characters", n), fmt.Sprintf("at most %d", most))
	case !utf8.ValidString(text) || strings.ContainsFunc(text, bad):
		c.wrong(path, "has characters that are no text", "printable ones")
	}
}

// predicate checks a bare predicate.
func (c *manifestCheck) predicate(path, text string) {
	if len(text) > predicateMost {
		c.wrong(path, fmt.Sprintf("has %d bytes", len(text)), fmt.Sprintf("at most %d", predicateMost))
		return
	}
	_, err := query.ParsePredicate(text)
	if e, ok := errors.AsType[*query.Error](err); ok {
		c.wrong(path, fmt.Sprintf("has %s at column %d", e.Found, e.Column()), e.Expected)
	} else if err != nil {
		c.wrong(path, err.Error(), "a predicate")
	}
}

func (c *manifestCheck) params() {
	m := c.m
	properties := members(m.Params)
	if len(m.Params) > 0 && properties == nil && string(m.Params) != "null" {
		c.wrong("params", "found "+clip(string(m.Params)), "an object: for each parameter its JSON Schema")
		return
	}
	if len(properties) > paramsMost {
		c.wrong("params", fmt.Sprintf("are %d", len(properties)), fmt.Sprintf("at most %d", paramsMost))
		return
	}
	before := len(c.faults)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		c.param(name, properties[name])
	}
	if len(c.faults) == before {
		c.schema()
	}
	defer func() { c.unknown = len(c.faults) > before }()
	for i, name := range m.Required {
		path := fmt.Sprintf("required[%d]", i)
		if _, have := properties[name]; !have {
			expected := "none: there are no params"
			if len(properties) > 0 {
				expected = wording.OneOf(slices.Sorted(maps.Keys(properties)))
			}
			c.wrong(path, "is "+quote(name)+", which is no parameter", expected)
		} else if slices.Index(m.Required, name) < i {
			c.wrong(path, quote(name)+" comes twice", "")
		}
	}
}

// param checks what the library that compiles schemas does not, or says less
// well.
func (c *manifestCheck) param(name string, text json.RawMessage) {
	path := "params." + clip(name)
	if !isIdentifier(name) || len(name) > nameMost {
		c.wrong(path, "is called "+quote(name), "letters, digits and _, at most "+strconv.Itoa(nameMost))
		return
	}
	if text = bytes.TrimSpace(text); string(text) == "true" {
		return
	}
	if members(text) == nil {
		c.wrong(path, "found "+clip(string(text)), `a JSON Schema such as { type = "integer", default = 0 }`)
		return
	}
	var p property
	if err := json.Unmarshal(text, &p); err != nil {
		return // what is wrong with it is found when it is compiled
	}
	known := append(Formats(), "date", "date-time", "time", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid", "json-pointer", "semver")
	if p.Format != "" && !slices.Contains(known, p.Format) {
		c.wrong(path+".format", "is "+quote(p.Format), wording.OneOf(known))
	}
}

// schema checks that the parameters' schemas are some, and that each default is
// a value that may be given.
func (c *manifestCheck) schema() {
	compiled, err := schema.Compile(c.m.Schema(), MaxDepth, formats()...)
	if err != nil {
		c.wrong("params", err.Error(), "")
		return
	}
	given := map[string]any{}
	fill(given, c.m.Params, MaxDepth)
	for _, v := range compiled.Check(nil, given) {
		if v.Found == "nothing" {
			continue // required: it is to be given
		}
		first, rest, _ := strings.Cut(v.Path, ".")
		path := "params." + first + ".default"
		if rest != "" {
			path += "." + rest
		}
		c.wrong(path, "found "+v.Found, v.Expected)
	}
}

func (c *manifestCheck) needs() {
	if n := len(c.m.Needs); n > needsMost {
		c.wrong("needs", fmt.Sprintf("are %d", n), fmt.Sprintf("at most %d", needsMost))
		return
	}
	for i, n := range c.m.Needs {
		path := fmt.Sprintf("needs[%d]", i)
		if err := n.Check(); err != nil {
			reason, expected, _ := strings.Cut(err.Error(), "; expected ")
			c.wrong(path, reason, expected)
		} else if slices.Index(c.m.Needs, n) < i {
			c.wrong(path, quote(string(n))+" comes twice", "")
		}
	}
}

// reach checks what says which devices a run is of.
func (c *manifestCheck) reach() {
	m := c.m
	if m.Applies != "" {
		c.predicate("applies", m.Applies)
	}
	if m.Scope != ScopeFleet {
		return
	}
	for _, x := range []struct {
		path string
		have bool
	}{{"applies", m.Applies != ""}, {"most", m.Most != 0}, {"rollout", m.Rollout != nil}, {"gate", m.HasGate}, {"check", m.HasCheck}} {
		if x.have {
			c.wrong(x.path, "is there, and the scope is fleet", "nothing: it is for patterns that run on devices")
		}
	}
}

// rollout checks the policy. Its times depend on no moment: a manifest is right
// or wrong whenever it is looked at.
func (c *manifestCheck) rollout() {
	if c.m.Rollout == nil {
		return
	}
	p, err := rollout.Parse(marshal(c.m.Rollout), "rollout") // a copy with defaults
	if err == nil {
		if !p.Start.IsZero() || !p.End.IsZero() {
			c.wrong("rollout.start", "is there, or end", "neither: they are a job's own")
			p.Start, p.End = time.Time{}, time.Time{}
		}
		if p.Repeat != "" {
			c.wrong("rollout.repeat", "is "+quote(p.Repeat), "none: a trigger with cron starts runs again and again")
			p.Repeat, p.RepeatZone = "", ""
		}
		_, err = p.Validate("rollout", time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC), -1)
	}
	c.add("", err)
	for i, w := range c.m.Rollout.Waves {
		if w.Health != nil {
			c.predicate(fmt.Sprintf("rollout.waves[%d].health.where", i), w.Health.Where)
		}
	}
}

// add takes over faults, with a path before theirs.
func (c *manifestCheck) add(before string, err error) {
	switch list, ok := errors.AsType[rollout.Faults](err); {
	case ok:
		for _, f := range list {
			c.wrong(before+f.Path, f.Reason, f.Expected)
		}
	case err != nil:
		c.wrong(strings.TrimSuffix(before, "."), err.Error(), "")
	}
}
