package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// JobFlags say what a job does. What they set stands above what --file and
// --template say.
type JobFlags struct {
	File        string            `short:"f" help:"The job as JSON or YAML, in the shape of the REST API; - is standard input. Flags add to it." placeholder:"FILE" group:"Job"`
	Template    string            `help:"Begin with this template." placeholder:"NAME" group:"Job"`
	Description string            `help:"What it is for." placeholder:"TEXT" group:"Job"`
	Label       map[string]string `help:"A label; repeatable." placeholder:"KEY=VALUE" mapsep:"none" group:"Job"`

	TargetFlags

	Patch           []string      `help:"Change twins: desired.x=1, tags.y=null; repeatable, and more may follow without the flag." placeholder:"PATH=VALUE" sep:"none" group:"Action"`
	Method          string        `help:"Call this direct method." placeholder:"NAME" group:"Action"`
	Payload         string        `help:"Payload of the method, as JSON." placeholder:"JSON" group:"Action"`
	ResponseTimeout time.Duration `help:"How long the device may take to answer." placeholder:"SPAN" group:"Action"`
	Offline         string        `help:"A device that is not connected: wait for it (when not given), or fail." enum:",wait,fail" default:"" placeholder:"wait|fail" group:"Action"`
	Confirm         string        `help:"It has taken effect when this predicate on the device's twin is true." placeholder:"PREDICATE" group:"Action"`

	PolicyFlags
}

// TargetFlags say for which devices or modules a job is.
type TargetFlags struct {
	Where        string   `help:"Targets: devices that this predicate matches." placeholder:"PREDICATE" group:"Targets"`
	Modules      bool     `help:"The predicate is about modules." group:"Targets"`
	Query        string   `help:"Targets: those of this saved query." placeholder:"NAME" group:"Targets"`
	IDs          []string `name:"ids" help:"Targets by name: DEVICE or DEVICE/MODULE, with commas or repeated; @FILE for one a line." placeholder:"ID" group:"Targets"`
	Exclude      []string `help:"Leave these out; as --ids." placeholder:"ID" group:"Targets"`
	ExcludeWhere string   `help:"Leave out what this predicate matches." placeholder:"PREDICATE" group:"Targets"`
	Dynamic      bool     `help:"Also take what comes to match while the job runs." group:"Targets"`
	AllowEmpty   bool     `help:"Make the job even if nothing matches now." group:"Targets"`
}

// PolicyFlags say how a job goes over its targets, and when.
type PolicyFlags struct {
	RolloutFlags

	Start      string `help:"Not before: RFC 3339, or a span from now such as 2h." placeholder:"TIME" group:"Policy"`
	End        string `help:"Not after: RFC 3339, or a span from now." placeholder:"TIME" group:"Policy"`
	AtEnd      string `help:"Then: stop (when not given: what was begun goes on) or cancel." enum:",stop,cancel" default:"" placeholder:"stop|cancel" group:"Policy"`
	Repeat     string `help:"Run again at each time of this cron expression." placeholder:"CRON" group:"Policy"`
	RepeatZone string `help:"Time zone of --repeat." placeholder:"ZONE" group:"Policy"`

	DeviceTimeout  span     `help:"How long one device may take in all, waiting for it included." placeholder:"SPAN" group:"Policy"`
	AttemptTimeout span     `help:"How long one attempt may take." placeholder:"SPAN" group:"Policy"`
	Retries        int      `help:"Try a device so many times more." placeholder:"N" group:"Policy"`
	RetryOn        []string `help:"After these outcomes: failed, timedOut, rejected, uncertain, offline; failed, timedOut and offline when not given." placeholder:"OUTCOME" group:"Policy"`
	Backoff        span     `help:"Wait so long before the first retry; each next wait is twice as long." placeholder:"SPAN" group:"Policy"`
	Priority       int      `help:"Before jobs of a lower priority." placeholder:"N" group:"Policy"`
}

// RolloutFlags say how a change spreads.
type RolloutFlags struct {
	Waves       []string `help:"How far each wave reaches: 1,10%,100%." placeholder:"SIZE" group:"Policy"`
	Diverse     bool     `help:"Choose the first waves' targets so that they differ in model, firmware and site." group:"Policy"`
	DiverseBy   []string `help:"Paths in twins by which they differ, the weightiest first, such as reported.fw,tags.site." placeholder:"PATH" group:"Policy"`
	Soak        span     `help:"Wait so long when a wave has ended." placeholder:"SPAN" group:"Policy"`
	ApproveFrom int      `help:"From this wave on, each one waits for approval; 1 is the first." placeholder:"N" group:"Policy"`
	Health      string   `help:"After each wave, count the targets reached so far that match this predicate: those are ill." placeholder:"PREDICATE" group:"Policy"`
	HealthMost  string   `help:"How many may be ill, such as 2%; none when not given." placeholder:"SHARE" group:"Policy"`
	HealthElse  string   `help:"With more of them: pause (when not given) or abort." enum:",pause,abort" default:"" placeholder:"pause|abort" group:"Policy"`
	Rate        string   `help:"Start at most so many: 50/m, 5/s or 1000/h." placeholder:"RATE" group:"Policy"`
	RateFactor  float64  `help:"Let the rate grow by this factor, with --rate-every." placeholder:"X" group:"Policy"`
	RateEvery   int      `help:"After so many that succeeded the rate grows." placeholder:"N" group:"Policy"`
	RateMost    string   `help:"Where the rate stops to grow." placeholder:"RATE" group:"Policy"`
	Parallel    int      `help:"So many devices at a time." placeholder:"N" group:"Policy"`
	Window      []string `help:"Start only then: 'CRON SPAN [ZONE]', such as '0 22 * * 1-5 6h Europe/Paris'; repeatable. tags.PATH as ZONE takes each device's own from its tag." placeholder:"WINDOW" sep:"none" group:"Policy"`

	PauseAt string `help:"Pause when so many of a wave come to a bad end: 5%, or 20." placeholder:"SHARE" group:"Policy"`
	AbortAt string `help:"Give up when so many of a wave come to a bad end." placeholder:"SHARE" group:"Policy"`
	Least   int    `help:"A percentage of --pause-at and --abort-at counts from so many outcomes on." placeholder:"N" group:"Policy"`
}

// span is a flag's duration as the hub takes it: Go's, and days, "2d".
type span string

// UnmarshalText checks the text, so that a typing error is told as one of usage.
func (s *span) UnmarshalText(text []byte) error {
	if _, err := readSpan(string(text)); err != nil {
		return err
	}
	*s = span(text)
	return nil
}

func validSpan(text string) bool {
	_, err := spanOf(text)
	return err == nil
}

// jobDraft is a job as its file, its template and its flags say it. whole: they
// are all that there is.
func (a *app) jobDraft(f JobFlags, patch []string, whole bool) (client.JobDraft, error) {
	draft := client.JobDraft{Template: f.Template}
	var base map[string]any
	if f.File != "" {
		var err error
		if base, err = a.jobFile(f.File); err != nil {
			return draft, err
		}
	}
	spec, err := f.spec(append(f.Patch, patch...), time.Now())
	if err != nil {
		return draft, err
	}
	given, err := asMap(spec)
	if err != nil {
		return draft, err
	}
	if base == nil && f.Template == "" && whole {
		if _, ok := given["targets"]; !ok {
			return draft, usage("the job has no targets", "Give --where, --query or --ids, or a whole job with -f FILE; --where true is every device.")
		}
		if _, ok := given["action"]; !ok {
			return draft, usage("the job has no action", "Give --patch PATH=VALUE or --method NAME, or a whole job with -f FILE.")
		}
	}
	draft.Spec, err = json.Marshal(laidOver(base, given))
	return draft, err
}

// jobFile reads a job from a file, JSON or YAML.
func (a *app) jobFile(name string) (map[string]any, error) {
	var data []byte
	var err error
	if name == "-" {
		data, err = io.ReadAll(io.LimitReader(a.io.In, jobFileMost+1))
	} else {
		data, err = readBounded(name, jobFileMost)
	}
	if err != nil {
		return nil, err
	}
	shown := printable(name)
	if name == "-" {
		shown = "standard input"
	}
	if len(data) > jobFileMost {
		return nil, usage(shown+" is larger than 1 MiB", "The hub takes no larger jobs: name targets by a predicate or a saved query.")
	}
	raw, err := readObject(data, shown, "Write the job as JSON or YAML.")
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // a patch keeps its numbers' text
	var m map[string]any
	if err := d.Decode(&m); err != nil || m == nil {
		return nil, usage(shown+" is not an object", "Write targets, action and policy; `muster job template show` and the REST reference have the shape.")
	}
	return m, nil
}

// jobFileMost is the largest job file in bytes.
const jobFileMost = 1 << 20

func readBounded(name string, most int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	return io.ReadAll(io.LimitReader(file, most+1))
}

// asMap is a value as the JSON object that it encodes to.
func asMap(v any) (map[string]any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var m map[string]any
	err = d.Decode(&m)
	return m, err
}

// laidOver returns base with the members of top, objects member by member.
// What top holds of a twin's patch or a method's payload stands whole.
func laidOver(base, top map[string]any) map[string]any {
	if base == nil {
		return top
	}
	for key, value := range top {
		inner, isObject := value.(map[string]any)
		under, wasObject := base[key].(map[string]any)
		if isObject && wasObject && key != "tags" && key != "desired" && key != "payload" {
			base[key] = laidOver(under, inner)
			continue
		}
		base[key] = value
	}
	return base
}

// spec is what the flags say.
func (f *JobFlags) spec(patch []string, now time.Time) (client.JobSpec, error) {
	s := client.JobSpec{Description: f.Description, Labels: f.Label, AllowEmpty: f.AllowEmpty, Targets: client.JobTargets{DiverseBy: f.DiverseBy}}
	err := inOrder(
		func() error { return f.targets(&s.Targets, f.File != "" || f.Template != "") },
		func() error { return f.action(&s.Action, patch) },
		func() error { return f.policy(&s.Policy, now) },
	)
	return s, err
}

// policy is what the flags say of how the job goes.
func (f *PolicyFlags) policy(p *client.JobPolicy, now time.Time) error {
	return inOrder(
		func() error { return f.waves(p) },
		func() error { return f.pace(p) },
		func() error { return f.times(p, now) },
		func() error { return f.ends(p) },
	)
}

func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// targets says whom; elsewhere: a file or a template may say it, too.
func (f *TargetFlags) targets(t *client.JobTargets, elsewhere bool) (err error) {
	t.Where, t.Query, t.ExcludeWhere, t.Dynamic = f.Where, f.Query, f.ExcludeWhere, f.Dynamic
	if f.Modules {
		if f.Where == "" && !elsewhere {
			return usage("--modules goes with --where", "Name modules as DEVICE/MODULE with --ids.")
		}
		t.Source = "modules"
	}
	if t.IDs, err = namedTargets("--ids", f.IDs); err != nil {
		return err
	}
	t.Exclude, err = namedTargets("--exclude", f.Exclude)
	return err
}

// namedTargets reads ids, @FILE among them for one a line.
func namedTargets(flag string, list []string) ([]string, error) {
	var ids []string
	for _, item := range list {
		name, ok := strings.CutPrefix(item, "@")
		if !ok {
			ids = append(ids, item)
			continue
		}
		data, err := readBounded(name, jobFileMost)
		if err != nil {
			return nil, err
		}
		if len(data) > jobFileMost {
			return nil, usage(fmt.Sprintf("%s: %s is larger than 1 MiB", flag, name), "Name targets by a predicate or a saved query.")
		}
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimSpace(line); line != "" {
				ids = append(ids, line)
			}
		}
	}
	return ids, nil
}

func (f *JobFlags) action(to *client.JobAction, patch []string) error {
	to.Offline, to.Confirm = f.Offline, f.Confirm
	if len(patch) > 0 {
		if f.Method != "" {
			return usage("--patch and --method are both given", "A job does one thing: give one of them.")
		}
		raw, err := parseAssignments(patch)
		if err != nil {
			return usage(err.Error(), "Write PATH=VALUE, such as desired.interval=30 or tags.old=null.")
		}
		var twin struct {
			Tags       json.RawMessage
			Properties struct{ Desired json.RawMessage }
		}
		if err := json.Unmarshal(raw, &twin); err != nil {
			return err
		}
		to.Twin = &client.JobTwin{Tags: twin.Tags, Desired: twin.Properties.Desired}
	}
	if f.Method == "" {
		if f.Payload != "" || f.ResponseTimeout != 0 {
			return usage("--payload and --response-timeout go with --method", "Give --method NAME.")
		}
		return nil
	}
	to.Method = &client.JobMethod{Name: f.Method}
	if f.Payload != "" {
		if !json.Valid([]byte(f.Payload)) {
			return usage("--payload is not JSON", `Write JSON: '{"delay":5}', '5' or '"text"'.`)
		}
		to.Method.Payload = json.RawMessage(f.Payload)
	}
	if f.ResponseTimeout > 0 {
		to.Method.ResponseTimeout = f.ResponseTimeout.String()
	}
	return nil
}

// waves turns the flags about waves into waves: the first ones are canaries,
// between two there are soak, health and approval.
func (f *PolicyFlags) waves(p *client.JobPolicy) error {
	if f.Health == "" && (f.HealthMost != "" || f.HealthElse != "") {
		return usage("--health-most and --health-else go with --health", "Give --health PREDICATE.")
	}
	if len(f.DiverseBy) > 0 && !f.Diverse {
		return usage("--diverse-by goes with --diverse", "Give --diverse.")
	}
	if len(f.Waves) == 0 {
		if f.Diverse || f.Soak != "" || f.ApproveFrom > 1 {
			return usage("--diverse, --soak and --approve-from are about waves, and there are none", "Give --waves, such as --waves 1,10%,100%.")
		}
		if f.Health == "" && f.ApproveFrom == 0 {
			return nil
		}
		f.Waves = []string{"100%"}
	}
	if f.ApproveFrom < 0 || f.ApproveFrom > len(f.Waves) {
		return usage(fmt.Sprintf("--approve-from is %d and there are %d waves", f.ApproveFrom, len(f.Waves)), "Give the number of a wave; 1 is the first.")
	}
	for i, size := range f.Waves {
		last := i == len(f.Waves)-1
		w := client.JobWave{Size: strings.TrimSpace(size), Approval: f.ApproveFrom > 0 && i+1 >= f.ApproveFrom}
		if !last {
			w.Diverse, w.Soak = f.Diverse, string(f.Soak)
		}
		if f.Health != "" {
			w.Health = &client.JobHealth{Where: f.Health, AtMost: f.HealthMost, Otherwise: f.HealthElse}
		}
		p.Waves = append(p.Waves, w)
	}
	return nil
}

func (f *PolicyFlags) pace(p *client.JobPolicy) error {
	p.Parallel, p.Priority = f.Parallel, f.Priority
	if f.Rate == "" {
		if f.RateFactor != 0 || f.RateEvery != 0 || f.RateMost != "" {
			return usage("--rate-factor, --rate-every and --rate-most go with --rate", "Give --rate, such as --rate 50/m.")
		}
		return nil
	}
	r := &client.JobRate{Factor: f.RateFactor, Every: f.RateEvery}
	var err error
	if r.PerMinute, err = parseRate("--rate", f.Rate); err != nil {
		return err
	}
	if f.RateMost != "" {
		if r.Most, err = parseRate("--rate-most", f.RateMost); err != nil {
			return err
		}
	}
	if r.Every > 0 {
		r.Of = "succeeded"
	}
	p.Rate = r
	return nil
}

// parseRate returns how many a minute a text such as 50/m means.
func parseRate(flag, text string) (float64, error) {
	number, unit, ok := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	perMinute := map[string]float64{"s": 60, "m": 1, "min": 1, "h": 1. / 60}[strings.TrimSpace(unit)]
	if err != nil || !ok || perMinute == 0 || !(n > 0) || n > 1e9 {
		return 0, usage(fmt.Sprintf("%s is %q", flag, text), "Write how many in which time: 5/s, 50/m or 1000/h.")
	}
	return n * perMinute, nil
}

// windowForm is a cron expression of five fields or a name such as @daily, a
// span, and perhaps a zone.
var windowForm = regexp.MustCompile(`^\s*(@\w+|\S+(?:\s+\S+){4})\s+(\S*\d[a-zµ]+)(?:\s+(\S+))?\s*$`)

func (f *PolicyFlags) times(p *client.JobPolicy, now time.Time) (err error) {
	for _, text := range f.Window {
		parts := windowForm.FindStringSubmatch(text)
		if parts == nil || !validSpan(parts[2]) {
			return usage(fmt.Sprintf("--window is %q", text), "Write 'CRON SPAN [ZONE]': '0 22 * * 1-5 6h Europe/Paris' is 22:00 to 04:00 from Monday to Friday.")
		}
		w := client.JobWindow{Cron: parts[1], Duration: parts[2]}
		if strings.HasPrefix(parts[3], "tags.") {
			w.ZoneTag = parts[3]
		} else {
			w.TimeZone = parts[3]
		}
		p.Windows = append(p.Windows, w)
	}
	if p.Start, err = momentOf("--start", f.Start, now); err != nil {
		return err
	}
	if p.End, err = momentOf("--end", f.End, now); err != nil {
		return err
	}
	p.AtEnd, p.Repeat, p.RepeatZone = f.AtEnd, f.Repeat, f.RepeatZone
	return nil
}

// momentOf is a time as the hub takes it, of one that is written so or as a span
// from now.
func momentOf(flag, text string, now time.Time) (string, error) {
	if text == "" {
		return "", nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC().Format(time.RFC3339), nil
	}
	if from, ok := strings.CutPrefix(text, "+"); validSpan(from) || ok {
		d, err := spanOf(from)
		if err == nil {
			return now.Add(d).UTC().Truncate(time.Second).Format(time.RFC3339), nil
		}
	}
	return "", usage(fmt.Sprintf("%s is %q", flag, text), "Write a time as 2026-12-01T22:00:00+01:00, or a span from now such as 2h.")
}

// spanOf reads a span: Go's, with days before it or alone, as the hub writes it.
func spanOf(text string) (time.Duration, error) {
	rest, days := text, uint64(0)
	if before, after, ok := strings.Cut(text, "d"); ok {
		var err error
		if days, err = strconv.ParseUint(before, 10, 16); err != nil {
			return 0, err
		}
		if rest = after; rest == "" {
			rest = "0"
		}
	}
	if strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
		return 0, fmt.Errorf("%q has a sign", text)
	}
	d, err := time.ParseDuration(rest)
	if d += time.Duration(days) * 24 * time.Hour; d < 0 { //nolint:gosec // of 16 bits
		return 0, fmt.Errorf("%q is too long", text)
	}
	return d, err
}

func (f *PolicyFlags) ends(p *client.JobPolicy) error {
	p.Timeout, p.AttemptTimeout = string(f.DeviceTimeout), string(f.AttemptTimeout)
	switch {
	case f.Retries < 0:
		return usage("--retries is negative", "Give how many times more a device is tried.")
	case f.Retries == 0 && (len(f.RetryOn) > 0 || f.Backoff != ""):
		return usage("--retry-on and --backoff go with --retries", "Give --retries N.")
	case f.Retries > 0:
		p.Retry = &client.JobRetry{Attempts: f.Retries + 1, On: f.RetryOn, Backoff: string(f.Backoff)}
		if f.Backoff != "" {
			p.Retry.Factor = 2
		}
	}
	if f.PauseAt == "" && f.AbortAt == "" && f.Least != 0 {
		return usage("--least goes with --pause-at or --abort-at", "Give one of them.")
	}
	threshold := func(share string) []client.JobThreshold {
		if share == "" {
			return nil
		}
		return []client.JobThreshold{{Share: share, Least: f.Least}}
	}
	p.Pause, p.Abort = threshold(f.PauseAt), threshold(f.AbortAt)
	return nil
}
