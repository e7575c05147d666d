package simulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"
)

const (
	maxCohorts = 20
	maxNames   = 50 // of methods or of properties that a cohort has trouble with
	maxText    = 128
)

// Cohort is a part of a load fleet that has trouble. Which devices belong to it
// follows from the fleet's seed: the same seed and number of devices, the same
// cohort.
type Cohort struct {
	Name  string         `yaml:"name"`
	Share Share          `yaml:"share"` // of the fleet: a count, or a percentage, rounded up
	Tags  map[string]any `yaml:"tags"`  // given to its devices when they are made

	Methods       []string      `yaml:"methods"`        // that it has trouble with; none given: all
	MethodStatus  int           `yaml:"method_status"`  // of its answers; 0 = the behaviour's
	MethodMessage string        `yaml:"method_message"` // in its answers
	MethodDelay   time.Duration `yaml:"method_delay"`   // before its answers; 0 = the behaviour's
	Offline       bool          `yaml:"offline"`        // never connects
	Refuse        []string      `yaml:"refuse"`         // desired properties that it answers with 400
	Ill           bool          `yaml:"ill"`            // reports bad health

	// The trouble is there from when the device's desired properties have the one
	// named, until they have the other. "firmware=2.1.0" asks for the value too.
	Once  string `yaml:"once"`
	Until string `yaml:"until"`
}

// Share is a part of a fleet: "5" devices, or "8%".
type Share struct {
	count   int
	percent float64
}

// UnmarshalYAML reads a count or a percentage.
func (s *Share) UnmarshalYAML(text []byte) error {
	word := strings.Trim(strings.TrimSpace(string(text)), `"'`)
	digits, percent := strings.CutSuffix(word, "%")
	if percent {
		p, err := strconv.ParseFloat(digits, 64)
		if err != nil || !(p > 0 && p <= 100) {
			return fmt.Errorf("the share is %.20q, expected more than 0%% and at most 100%%", word)
		}
		s.percent = p
		return nil
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 {
		return fmt.Errorf("the share is %.20q, expected a count or a percentage such as 8%%", word)
	}
	s.count = n
	return nil
}

var _ yaml.BytesUnmarshaler = (*Share)(nil)

// of is how many of n devices the share is.
func (s Share) of(n int) int {
	if s.count > 0 {
		return min(s.count, n)
	}
	return int(math.Ceil(float64(n)*s.percent/100 - 1e-9))
}

// checkCohorts says what is wrong with a behaviour's cohorts, and where.
func (b *Behaviour) checkCohorts(text []byte) error {
	line := lineOf(string(text), "cohorts")
	fail := func(format string, args ...any) error {
		return fmt.Errorf("[%d:1] %s", line, fmt.Sprintf(format, args...))
	}
	if len(b.Cohorts) > maxCohorts {
		return fail("there are %d cohorts, at most %d are allowed", len(b.Cohorts), maxCohorts)
	}
	if len(b.Tags) > maxNames {
		return fmt.Errorf("[%d:1] there are %d tags, at most %d are allowed", lineOf(string(text), "tags"), len(b.Tags), maxNames)
	}
	for name, values := range b.Tags {
		if len(values) == 0 || len(values) > maxNames {
			return fmt.Errorf("[%d:1] the tag %.40q has %d values, expected 1 to %d", lineOf(string(text), "tags"), name, len(values), maxNames)
		}
	}
	percent, names := 0.0, map[string]bool{}
	for i := range b.Cohorts {
		c := &b.Cohorts[i]
		name := fmt.Sprintf("cohort %d (%.40q)", i+1, c.Name)
		percent += c.Share.percent
		switch {
		case c.Name == "" || len(c.Name) > maxText || names[c.Name]:
			return fail("%s needs a name of its own, of at most %d characters", name, maxText)
		case c.Share == (Share{}):
			return fail("%s has no share, expected a count or a percentage such as 8%%", name)
		case percent > 100:
			return fail("with %s the cohorts have more than the whole fleet", name)
		case c.MethodStatus != 0 && (c.MethodStatus < 100 || c.MethodStatus > 999):
			return fail("method_status of %s is out of bounds, expected 100 to 999", name)
		case c.MethodDelay < 0 || c.MethodDelay > 5*time.Minute:
			return fail("method_delay of %s is out of bounds, expected 0s to 5m", name)
		case len(c.Methods) > maxNames || len(c.Refuse) > maxNames || len(c.MethodMessage) > 1000 || len(c.Once) > maxText || len(c.Until) > maxText || len(c.Tags) > maxNames:
			return fail("%s names too much: at most %d methods, properties and tags, and %d characters each", name, maxNames, maxText)
		case c.Offline && (c.Once != "" || c.Until != ""):
			return fail("%s is offline and would never see the property of once or until", name)
		case !c.Offline && !c.Ill && len(c.Refuse) == 0 && c.MethodStatus == 0 && c.MethodMessage == "" && c.MethodDelay == 0:
			return fail("%s has no trouble, expected method_status, method_delay, offline, refuse or ill", name)
		case len(c.Methods) > 0 && c.MethodStatus == 0 && c.MethodMessage == "" && c.MethodDelay == 0:
			return fail("%s names methods without method_status, method_message or method_delay", name)
		}
		names[c.Name] = true
	}
	return nil
}

// cohortsOf says for each of n devices to which cohort it belongs; nil for none.
// Devices are drawn in an order that the seed decides.
func (b *Behaviour) cohortsOf(n int, seed uint64) []*Cohort {
	of := make([]*Cohort, n)
	if len(b.Cohorts) == 0 {
		return of
	}
	order := rand.New(rand.NewPCG(seed, 0xc0407)).Perm(n) //nolint:gosec // repeatable on purpose
	for i := range b.Cohorts {
		k := min(b.Cohorts[i].Share.of(n), len(order))
		for _, device := range order[:k] {
			of[device] = &b.Cohorts[i]
		}
		order = order[k:]
	}
	return of
}

// tagsOf are the tags with which the i-th device is made. A tag with several
// values has one after the other, each tag at a pace of its own, so that all
// combinations come.
func (b *Behaviour) tagsOf(i int, c *Cohort) (json.RawMessage, error) {
	tags := map[string]any{LoadTag: true}
	pace := 1
	for _, name := range slices.Sorted(maps.Keys(b.Tags)) {
		values := b.Tags[name]
		tags[name] = values[i/pace%len(values)]
		pace *= len(values)
	}
	if c != nil {
		maps.Copy(tags, c.Tags)
	}
	return json.Marshal(tags)
}

// acknowledges reports whether devices answer each desired property by name:
// where some may be refused.
func (b *Behaviour) acknowledges() bool {
	return slices.ContainsFunc(b.Cohorts, func(c Cohort) bool { return len(c.Refuse) > 0 })
}

// tellsHealth reports whether devices report their health: where some are ill.
func (b *Behaviour) tellsHealth() bool {
	return slices.ContainsFunc(b.Cohorts, func(c Cohort) bool { return c.Ill })
}

// wishes is what a device knows of its desired properties, for its cohort's
// trouble and for its answers. It is safe for concurrent use.
type wishes struct {
	mu      sync.Mutex
	values  map[string]json.RawMessage
	version int64
	asked   map[string]bool // properties not answered since they changed
}

// learn takes a patch, or all of them when whole.
func (w *wishes) learn(version int64, patch json.RawMessage, whole bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(patch, &members) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if whole && version < w.version {
		return // read before what came meanwhile
	}
	if whole || w.values == nil {
		w.values, w.asked = map[string]json.RawMessage{}, map[string]bool{}
	}
	w.version = max(w.version, version)
	for name, value := range members {
		if name == "$version" {
			continue
		}
		if w.asked[name] = true; string(value) == "null" {
			delete(w.values, name)
			continue
		}
		w.values[name] = value
	}
}

// has reports whether "name", or "name=value", is among the properties.
func (w *wishes) has(wanted string) bool {
	name, want, valued := strings.Cut(wanted, "=")
	w.mu.Lock()
	defer w.mu.Unlock()
	value, ok := w.values[name]
	if !ok || !valued {
		return ok
	}
	var text string
	if json.Unmarshal(value, &text) != nil {
		text = string(value)
	}
	return text == want
}

// answers are the acknowledgements that are due, and the version that they are
// of; refused names are answered with 400.
func (w *wishes) answers(refused []string) (due map[string]any, version int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	due = map[string]any{}
	for name := range w.asked {
		value, there := w.values[name]
		switch {
		case !there:
			due[name] = nil
		case slices.Contains(refused, name):
			due[name] = acknowledgement{value, 400, w.version, "refused"}
		default:
			due[name] = acknowledgement{value, 200, w.version, "applied"}
		}
	}
	return due, w.version
}

// answered says that acknowledgements have arrived.
func (w *wishes) answered(done map[string]any, version int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.version != version {
		return // more came meanwhile: all are answered again
	}
	for name := range done {
		delete(w.asked, name)
	}
}

// troubled is the device's cohort if its trouble is there now, else nil.
func (d *loadDevice) troubled() *Cohort {
	c := d.cohort
	if c == nil || c.Once != "" && !d.wishes.has(c.Once) || c.Until != "" && d.wishes.has(c.Until) {
		return nil
	}
	return c
}

// troubles reports whether a method is one that the cohort has trouble with.
func (c *Cohort) troubles(method string) bool {
	return c != nil && (len(c.Methods) == 0 || slices.Contains(c.Methods, method))
}

// Cohorts are the ids of the devices of each cohort by its name.
func (l *Load) Cohorts() map[string][]string {
	of := map[string][]string{}
	for i, c := range l.cohorts {
		if c != nil {
			of[c.Name] = append(of[c.Name], l.id(i))
		}
	}
	return of
}
