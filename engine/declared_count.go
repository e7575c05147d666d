package engine

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine/schema"
	"github.com/muster-hub/muster/engine/twin"
)

// SchemaViolation counts what devices' twins had at one path against the
// declared schema.
type SchemaViolation struct {
	Path     string // with its section: "reported.battery"; indexes are [], further paths "..."
	Warned   uint64 // changes that were stored all the same
	Rejected uint64 // changes that were refused
	Device   string // of the last one
	Found    string
	Expected string
	Last     time.Time

	told time.Time // when the log last said so
}

// violationPaths bounds the paths that are counted apart: their names come
// from devices.
const violationPaths = 1000

// declaredState is the declared schema in force, and what was found against it.
type declaredState struct {
	current atomic.Pointer[compiledSchemas] // nil: none

	mu     sync.Mutex
	counts map[string]*SchemaViolation
}

// use puts a schema into force, nil for none, and counts anew.
func (d *declaredState) use(c *compiledSchemas) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current.Store(c)
	clear(d.counts)
}

// note counts violations, and returns those that the log has not told within
// the last minute.
func (d *declaredState) note(now time.Time, id TwinID, kind twin.Kind, list []schema.Violation, rejected bool) (tell []SchemaViolation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range list {
		path := sectionPath(kind, withoutIndexes(v.Path))
		n := d.counts[path]
		if n == nil && len(d.counts) >= violationPaths {
			path = "..."
			n = d.counts[path]
		}
		if n == nil {
			n = &SchemaViolation{Path: path}
			if d.counts == nil {
				d.counts = map[string]*SchemaViolation{}
			}
			d.counts[path] = n
		}
		if rejected {
			n.Rejected++
		} else {
			n.Warned++
		}
		n.Device, n.Found, n.Expected, n.Last = id.String(), v.Found, v.Expected, now.UTC()
		if now.Sub(n.told) >= toldEvery {
			n.told = now
			tell = append(tell, *n)
		}
	}
	return tell
}

// withoutIndexes makes one path of those of an array's items.
func withoutIndexes(path string) string {
	parts := strings.Split(path, ".")
	for i, p := range parts {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			parts[i] = "[]"
		}
	}
	return strings.Join(parts, ".")
}

func (d *declaredState) list() []SchemaViolation {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]SchemaViolation, 0, len(d.counts))
	for _, v := range d.counts {
		list = append(list, *v)
	}
	slices.SortFunc(list, func(a, b SchemaViolation) int {
		return cmp.Or(cmp.Compare(b.Warned+b.Rejected, a.Warned+a.Rejected), strings.Compare(a.Path, b.Path))
	})
	return list
}
