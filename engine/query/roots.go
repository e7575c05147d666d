package query

import (
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/wording"
)

// segment is one part of a path as it was written.
type segment struct {
	text   string
	quoted bool // [[x]], or a string key
	at     int
}

// The root attributes that a query can read, by source, in canonical spelling.
var (
	twinRoots = [...]string{
		"deviceId", "etag", "deviceEtag", "version", "status", "statusReason", "statusUpdateTime", "connectionState", "lastActivityTime",
		"cloudToDeviceMessageCount", "authenticationType", "x509Thumbprint", "capabilities", "deviceScope", "parentScopes", "modelId",
		"tags", "properties", "configurations",
	}
	jobRoots = [...]string{
		"deviceId", "moduleId", "jobId", "jobType", "status", "startTimeUtc", "endTimeUtc", "createdDateTimeUtc",
		"lastUpdatedDateTimeUtc", "outcome", "error",
	}
	runRoots = [...]string{
		"runId", "deviceId", "moduleId", "pattern", "version", "state", "entry", "step", "stepCount", "phase", "progress", "text", "question",
		"jobId", "parentRunId", "retryOf", "trigger", "attempt", "createdTime", "startedTime", "updatedTime", "endedTime", "dueTime",
		"code", "message", "result", "principal",
	}
)

// The aliases of attributes, an extension.
const (
	aliasDesired   = "desired"   // properties.desired
	aliasReported  = "reported"  // properties.reported
	aliasConnected = "connected" // connectionState is Connected
)

// roots returns the attributes of a source.
func (s Source) roots() []string {
	switch s {
	case Jobs:
		return jobRoots[:]
	case Runs:
		return runRoots[:]
	case Modules:
		return append([]string{"deviceId", "moduleId"}, twinRoots[1:]...)
	}
	return twinRoots[:]
}

// scope is where names are looked up.
type scope struct {
	source Source
	bare   bool // a predicate: for devices and modules alike
}

// resolve makes a path of segments, in canonical spelling. The alias connected
// is no path: then connected is true.
func (f *faults) resolve(s scope, segments []segment) (path Path, connected bool) {
	segments = f.stripSource(s, segments)
	if len(segments) == 0 || f.err != nil {
		return nil, false
	}
	if len(segments) > maxSegments {
		f.fail(segments[maxSegments].at, "a path of more than "+count(maxSegments, "name"), "a shorter one: twins nest less deeply")
		return nil, false
	}
	first := segments[0]
	root := canonical(s.source.roots(), first.text)
	if root == "" && s.bare {
		root = canonical([]string{"moduleId"}, first.text)
	}
	if root == "" && s.source == Jobs && strings.EqualFold(first.text, "createdTimeUtc") {
		root = "createdDateTimeUtc" // as IoT Hub's documentation calls it
	}
	if root == "" && !s.source.columnless() {
		switch name := strings.ToLower(first.text); name {
		case aliasDesired, aliasReported:
			f.extension(first.at, "the alias "+name)
			return append(Path{"properties", name}, texts(segments[1:])...), false
		case aliasConnected:
			f.extension(first.at, "the alias "+name)
			if len(segments) > 1 {
				f.fail(segments[1].at, quoted(segments[1].text)+" below connected", "nothing below it: connected is true or false")
			}
			return nil, true
		}
	}
	if root == "" {
		f.unknownRoot(s, segments)
		return nil, false
	}
	path = append(Path{root}, texts(segments[1:])...)
	f.below(path, segments)
	return path, false
}

// stripSource drops the prefix devices., devices.modules., devices.jobs. or
// devices.runs.
func (f *faults) stripSource(s scope, segments []segment) []segment {
	if len(segments) < 2 || segments[0].quoted || !strings.EqualFold(segments[0].text, "devices") {
		return segments
	}
	collection := ""
	if second := strings.ToLower(segments[1].text); !segments[1].quoted && (second == "modules" || second == "jobs" || second == "runs") {
		collection = second
	}
	want := strings.TrimPrefix(strings.TrimPrefix(s.source.String(), "devices"), ".")
	if s.bare && collection == "modules" {
		want = collection
	}
	if collection != want {
		f.fail(segments[0].at, quoted(strings.TrimSuffix("devices."+collection, ".")), "an attribute of "+s.source.String()+", which the query reads")
		return nil
	}
	if collection != "" {
		segments = segments[1:]
	}
	if len(segments) == 1 {
		f.fail(segments[0].at, "a collection", "an attribute of it, as in "+s.source.String()+".deviceId")
		return nil
	}
	return segments[1:]
}

// below checks and spells what stands behind the roots that have known members.
func (f *faults) below(path Path, segments []segment) {
	if len(path) < 2 {
		return
	}
	var known []string
	switch path[0] {
	case "properties":
		known = []string{"desired", "reported"}
	case "capabilities":
		known = []string{"iotEdge"}
	case "x509Thumbprint":
		known = []string{"primaryThumbprint", "secondaryThumbprint"}
	default:
		return
	}
	name := canonical(known, path[1])
	if name == "" {
		at := segments[len(segments)-len(path)+1].at
		f.fail(at, quoted(path[1])+" below "+path[0], meant(path[1], known, wording.OneOf(known)))
		return
	}
	path[1] = name
}

// unknownRoot says what could have been meant by a name.
func (f *faults) unknownRoot(s scope, segments []segment) {
	first := segments[0]
	before := f.text[:min(first.at, len(f.text))]
	known := s.source.roots()
	switch {
	case !s.bare && strings.HasSuffix(before, "-") && len(before) > 1 && isWordByte(before[len(before)-2]):
		f.fail(first.at, quoted(first.text)+" behind a minus", "a number or an attribute; a name with a dash is written [["+dashed(before)+first.text+"]]")
	case s.source == Devices && strings.EqualFold(first.text, "moduleId"):
		f.fail(first.at, `"moduleId"`, "an attribute of devices; moduleId is one of devices.modules")
	case s.source == Jobs:
		f.fail(first.at, quoted(first.text), meant(first.text, known, "an attribute of a job's device: "+strings.Join(known, ", ")))
	case s.source == Runs:
		f.fail(first.at, quoted(first.text), meant(first.text, known, "an attribute of a run: "+strings.Join(known, ", ")))
	case slices.ContainsFunc([]string{"generationId", "connectionStateUpdatedTime", "managedBy"}, func(n string) bool { return strings.EqualFold(n, first.text) }):
		f.fail(first.at, quoted(first.text)+", which is part of the identity and not of the twin", "one of "+strings.Join(known, ", "))
	case wording.Nearest(first.text, withAliases(known)) != "":
		f.fail(first.at, quoted(first.text), meant(first.text, withAliases(known), "an attribute"))
	case len(segments) == 1 && comparedWith(before):
		f.fail(first.at, quoted(first.text), "a string in quotes, '"+clip(first.text)+"', or an attribute")
	default:
		name := "." + clip(Path(texts(segments)).String())
		if s.bare {
			name = clip(append(Path{""}, texts(segments)...).Bare())
		}
		f.fail(first.at, quoted(first.text), "tags"+name+", properties.desired"+name+" or properties.reported"+name+" for a property of your own, or an attribute: "+strings.Join(known, ", "))
	}
}

// comparedWith reports whether a text ends with a comparison, behind which a
// single name is likely a string that lacks its quotes.
func comparedWith(text string) bool {
	text = strings.TrimRight(text, " ")
	return text != "" && strings.IndexByte("=<>", text[len(text)-1]) >= 0
}

func withAliases(roots []string) []string {
	return append([]string{aliasDesired, aliasReported, aliasConnected}, roots...)
}

// canonical returns the name in names that is spelt like this in any case.
func canonical(names []string, name string) string {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return n
		}
	}
	return ""
}

func texts(segments []segment) []string {
	list := make([]string, len(segments))
	for i, s := range segments {
		list[i] = s.text
	}
	return list
}

// isWordByte reports whether c can end a name.
func isWordByte(c byte) bool {
	return c == '_' || isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c >= 0x80
}

// dashed returns the name and its dash with which text ends.
func dashed(text string) string {
	i := len(text) - 1
	for i > 0 && (isWordByte(text[i-1]) || text[i-1] == '-') {
		i--
	}
	return clip(text[i:])
}
