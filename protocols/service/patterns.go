package service

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

const (
	tagPatterns = "Patterns"
	tagRuns     = "Runs"
)

// archiveBytes bounds the upload of a pattern.
const archiveBytes = pattern.MaxArchive

// installTime is how long the check of a pattern may take: a worker has to start
// and to load it.
const installTime = 30 * time.Second

func patternRoutes() []*route {
	const read, write, root = auth.ServiceConnect, auth.HubManage, "/api/v1/patterns"
	const one = root + "/{pattern}"
	version := []parameter{{name: "version", kind: "string", text: "Which version; the default one when absent."}}
	table := []*route{
		{
			method: http.MethodGet, pattern: root, operation: "listPatterns", tag: tagPatterns, permission: read, query: listQuery("versions"),
			summary: "Lists every installed version of every pattern, by name, the newest version first.", response: page[patternDocument]{}, handle: listPatterns,
		},
		{
			method: http.MethodPost, pattern: root, operation: "installPattern", tag: tagPatterns, permission: write, idempotent: true, status: http.StatusCreated,
			query: []parameter{
				{name: "grant", kind: "string", text: "The capabilities that the pattern may use, separated by commas: all that it needs, or it is refused; all for all of them."},
				{name: "unsigned", kind: "boolean", text: "true: it may be without a signature of a trusted key."},
				{name: "disabled", kind: "boolean", text: "true: it is not enabled."},
				{name: "inspect", kind: "boolean", text: "true: nothing is installed; the answer is what would be."},
			},
			summary: "Installs a version of a pattern beside those that there are. The body is the archive of its folder (.tar.gz or .zip), with pattern.sig when it is signed, or its one file of Lua.",
			request: rawContent{}, response: patternDocument{}, maxBody: archiveBytes, handle: installPattern,
			also: map[int]string{http.StatusOK: "It was inspected, and nothing is installed."},
		},
		{
			method: http.MethodGet, pattern: one, operation: "getPattern", tag: tagPatterns, permission: read, query: version,
			summary: "Returns a pattern: what it declares, what it may do, and what its runs took.", response: patternDocument{}, handle: getPattern,
		},
		{
			method: http.MethodDelete, pattern: one, operation: "removePattern", tag: tagPatterns, permission: write, query: version, ifMatch: optional,
			summary: "Removes a version of a pattern of which no run is under way.", status: http.StatusNoContent, handle: removePattern,
		},
		{
			method: http.MethodGet, pattern: one + "/files", operation: "listPatternFiles", tag: tagPatterns, permission: read, query: version,
			summary: "Returns the files of a pattern, by path.", response: page[patternFile]{}, handle: listPatternFiles,
		},
		{
			method: http.MethodGet, pattern: one + "/counts", operation: "countPatternRuns", tag: tagPatterns, permission: read, query: version,
			summary: "Counts the runs of a pattern by where they stand; of all versions when none is named.", response: page[runCountDocument]{}, handle: countPatternRuns,
		},
		{
			method: http.MethodPost, pattern: one + "/enable", operation: "enablePattern", tag: tagPatterns, permission: write, query: version, ifMatch: optional, idempotent: true,
			summary: "Lets runs of a pattern begin, also by its triggers: they act with the caller's permissions.", response: patternDocument{}, handle: controlPattern((*engine.Hub).EnablePattern),
		},
		{
			method: http.MethodPost, pattern: one + "/disable", operation: "disablePattern", tag: tagPatterns, permission: write, query: version, ifMatch: optional, idempotent: true,
			summary: "Lets none begin any more; those under way go on.", response: patternDocument{}, handle: controlPattern((*engine.Hub).DisablePattern),
		},
		{
			method: http.MethodPost, pattern: one + "/default", operation: "setDefaultPattern", tag: tagPatterns, permission: write, query: version, ifMatch: optional, idempotent: true,
			summary: "Makes a version the one that runs when none is named.", response: patternDocument{}, handle: controlPattern((*engine.Hub).DefaultPattern),
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func listPatterns(c *call) (answer, error) {
	list, err := c.hub.Patterns(c.r.Context(), c.caller)
	if err != nil {
		return answer{}, err
	}
	return pageOfPatterns(c, "patterns", list, func(p *engine.Pattern) (name, version string) { return p.Manifest.Name, p.Manifest.Version }, showPattern)
}

// pageOfPatterns cuts a page out of the whole list of versions, by name and the
// newest version first.
func pageOfPatterns[T, D any](c *call, list string, all []T, id func(*T) (name, version string), shown func(T) D) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	after, err := parseCursor(c.query.Get("cursor"), list, "")
	if err != nil {
		return answer{}, err
	}
	position := func(p *T) string {
		name, version := id(p)
		return name + "\x01" + version
	}
	if after != "" {
		from := slices.IndexFunc(all, func(p T) bool { return position(&p) == after }) + 1
		if from == 0 { // it was removed meanwhile: the next name goes on
			before, _, _ := strings.Cut(after, "\x01")
			if from = slices.IndexFunc(all, func(p T) bool { name, _ := id(&p); return name > before }); from < 0 {
				from = len(all)
			}
		}
		all = all[from:]
	}
	next := ""
	if len(all) > limit {
		all = all[:limit]
		next = position(&all[limit-1])
	}
	return answer{body: page[D]{show(all, shown), makeCursor(list, "", next)}}, nil
}

func shownPattern(p engine.Pattern, err error) (answer, error) {
	return answer{body: showPattern(p), etag: p.ETag}, err
}

func getPattern(c *call) (answer, error) {
	return shownPattern(c.hub.Pattern(c.r.Context(), c.caller, c.params[0], c.query.Get("version")))
}

func removePattern(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.RemovePattern(c.r.Context(), c.caller, c.params[0], c.query.Get("version"), c.condition())
}

func controlPattern(do func(h *engine.Hub, ctx context.Context, c engine.Caller, name, version, ifMatch string) (engine.Pattern, error)) func(*call) (answer, error) {
	return func(c *call) (answer, error) {
		return shownPattern(do(c.hub, c.r.Context(), c.caller, c.params[0], c.query.Get("version"), c.condition()))
	}
}

// flag reads a query parameter that is true or false.
func (c *call) flag(name string) (bool, error) {
	switch text := c.query.Get(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, invalid("the query parameter %s is %q; expected true or false", name, clip(text))
	}
}

func installPattern(c *call) (answer, error) {
	in := engine.PatternInstall{}
	var inspect bool
	for _, f := range []struct {
		name string
		to   *bool
	}{{"unsigned", &in.Unsigned}, {"disabled", &in.Disabled}, {"inspect", &inspect}} {
		var err error
		if *f.to, err = c.flag(f.name); err != nil {
			return answer{}, err
		}
	}
	data, err := c.read(archiveBytes)
	if err != nil {
		return answer{}, err
	}
	if in.Bundle, in.Signature, err = pattern.ReadArchive("", data); err != nil {
		return answer{}, notAPattern(err)
	}
	c.wait(installTime)
	grant := c.query.Get("grant")
	if inspect || grant == "all" {
		seen, err := c.hub.InspectPattern(c.r.Context(), c.caller, in)
		if err != nil || inspect {
			return answer{body: showPattern(seen)}, err
		}
		in.Grant = seen.Manifest.Needs
	} else if grant != "" {
		for n := range strings.SplitSeq(grant, ",") {
			in.Grant = append(in.Grant, pattern.Need(n))
		}
	}
	a, err := shownPattern(c.hub.InstallPattern(c.r.Context(), c.caller, in))
	a.status = http.StatusCreated
	return a, err
}

// notAPattern says what is wrong with an archive.
func notAPattern(err error) error {
	w := wireOf(engine.CodePatternInvalid)
	f := &failure{status: w.status, number: w.number, name: w.name, code: w.code.String(), text: err.Error(), next: w.code.Info().Next}
	if faults, ok := errors.AsType[rollout.Faults](err); ok {
		f.faults = faults
	}
	return f
}

func listPatternFiles(c *call) (answer, error) {
	b, err := c.hub.PatternBundle(c.r.Context(), c.caller, c.params[0], c.query.Get("version"))
	if err != nil {
		return answer{}, err
	}
	return answer{body: page[patternFile]{Items: showFiles(b)}}, nil
}

func countPatternRuns(c *call) (answer, error) {
	name, version := c.params[0], c.query.Get("version")
	if _, err := c.hub.Pattern(c.r.Context(), c.caller, name, version); err != nil {
		return answer{}, err
	}
	c.wait(exportPatience)
	list, err := c.hub.RunCounts(c.r.Context(), c.caller, engine.RunFilter{Pattern: name})
	if err != nil {
		return answer{}, err
	}
	if version != "" {
		list = slices.DeleteFunc(list, func(n engine.RunCount) bool { return n.Version != version })
	}
	return answer{body: page[runCountDocument]{Items: show(list, showRunCount)}}, nil
}
