package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// ConfigurationFlags are what one sets of a configuration.
type ConfigurationFlags struct {
	Where    *string           `help:"Which twins it is for, such as tags.site = 'lyon', or as a predicate: tags.site == \"lyon\"; '*' is all devices." placeholder:"CONDITION"`
	Modules  bool              `help:"It is for modules: --where is about modules, and --desired sets theirs."`
	Desired  []string          `help:"A desired property that it sets; repeatable. A value that is not JSON is a string; null keeps the property away." placeholder:"PATH=VALUE" sep:"none"`
	Drop     []string          `help:"A path that it no longer sets; repeatable." placeholder:"PATH" sep:"none"`
	Priority *int              `help:"Where two set the same path the higher one does, of equal ones the newer." placeholder:"N"`
	Label    map[string]string `help:"A label; repeatable. An empty value takes it away." placeholder:"KEY=VALUE" mapsep:"none"`
	Metric   map[string]string `help:"A query whose rows are counted; repeatable. An empty one takes it away." placeholder:"NAME=QUERY" mapsep:"none"`
}

type configurationApplyCmd struct {
	HubFlags
	OutputFlags
	ConfigurationFlags
	RolloutFlags
	WaitFlag
	AtOnce        bool   `help:"To all twins at once, without the rollout that the last revision had." group:"Policy"`
	File          string `short:"f" help:"The configuration as JSON, in IoT Hub's form, or a list of them; - is standard input. Flags add to it." placeholder:"FILE"`
	Create        bool   `help:"Only make a new one; refuse when it exists." xor:"etag"`
	ETag          string `name:"etag" help:"Change it only if it still has this ETag." placeholder:"ETAG" xor:"etag"`
	Configuration string `arg:"" optional:"" help:"Id of the configuration; of a file that names it it may be left out."`
}

// Run makes or changes configurations.
func (c *configurationApplyCmd) Run(a *app) error {
	var files []configurationFile
	if c.File != "" {
		var err error
		if files, err = a.readConfigurations(c.File); err != nil {
			return err
		}
	}
	policy, err := c.policy()
	if err != nil {
		return err
	}
	switch {
	case policy != nil && c.AtOnce:
		return usage("--at-once goes without flags of a rollout", "Give one of them.")
	case c.File == "" && c.Configuration == "":
		return usage("there is neither an id nor a file", "For example: muster configuration apply fan-lyon --where \"tags.site = 'lyon'\" --desired fan.speed=3")
	case c.File == "" && c.nothing() && policy == nil && !c.AtOnce:
		return usage("nothing to change", "Give -f FILE, or what it sets and where: --desired fan.speed=3 --where \"tags.site = 'lyon'\".")
	case len(files) > 1 && (c.Configuration != "" || c.ETag != "" || !c.nothing() || policy != nil || c.AtOnce):
		return usage(c.File+" holds several configurations", "An id, an ETag and flags go with one; leave them out.")
	case c.File == "":
		files = []configurationFile{{}}
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, file := range files {
		if c.Configuration != "" {
			file.ID = c.Configuration
		}
		g, err := c.apply(a, s, file, policy)
		if err != nil {
			return err
		}
		if err := a.settle(c.OutputFlags, s, g, c.Wait); err != nil {
			return err
		}
	}
	return nil
}

func (f *ConfigurationFlags) nothing() bool {
	return f.Where == nil && f.Priority == nil && !f.Modules && len(f.Desired)+len(f.Drop)+len(f.Label)+len(f.Metric) == 0
}

// apply puts one configuration: what the file says, or without one what there
// is, with the flags laid over it.
func (c *configurationApplyCmd) apply(a *app, s *client.Service, file configurationFile, policy *client.JobPolicy) (client.Configuration, error) {
	if file.ID == "" {
		return client.Configuration{}, usage(c.File+" has no id", "Name the configuration: muster configuration apply ID -f "+c.File)
	}
	ctx, stop := a.with(c.HubFlags)
	defer stop()
	settings, etag := file.ConfigurationSettings, c.ETag
	if !c.Create {
		is, err := s.Configuration(ctx, file.ID)
		switch {
		case client.IsNotFound(err):
		case err != nil:
			return is, err
		default:
			if c.File == "" {
				settings = is.ConfigurationSettings
			}
			if etag == "" { // so that a change in between is not lost
				etag = is.ETag
			}
		}
	}
	if err := c.lay(&settings); err != nil {
		return client.Configuration{}, err
	}
	if policy != nil || c.AtOnce {
		settings.Rollout = policy
	}
	settings.Metrics.Results = nil
	g, err := s.PutConfiguration(ctx, file.ID, settings, etag)
	if err == nil {
		err = contentKept(settings, g)
	}
	return g, err
}

// policy is what the flags say of a rollout, nil when they say nothing.
func (f *RolloutFlags) policy() (*client.JobPolicy, error) {
	var p client.JobPolicy
	all := PolicyFlags{RolloutFlags: *f}
	if err := all.policy(&p, time.Now()); err != nil {
		return nil, err
	}
	if reflect.ValueOf(p).IsZero() {
		return nil, nil
	}
	return &p, nil
}

// contentKept says so when a hub with the azure limits has left the content of
// an existing configuration as it was, as IoT Hub does.
func contentKept(asked client.ConfigurationSettings, g client.Configuration) error {
	same, err := sameJSON(asked.Content, g.Content)
	if err != nil || same {
		return err
	}
	return &problem{
		exit: ExitConflict, what: fmt.Sprintf("%s keeps the content that it had; everything else was changed", printable(g.ID)),
		why: "under the azure limits the content of a configuration can't be changed, as in IoT Hub", next: "Make a new configuration with a higher priority, and delete this one.",
	}
}

func sameJSON(x, y any) (bool, error) {
	var texts [2][]byte
	for i, v := range []any{x, y} {
		raw, err := json.Marshal(v)
		if err != nil {
			return false, err
		}
		var plain any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&plain); err != nil {
			return false, err
		}
		if texts[i], err = json.Marshal(plain); err != nil { // members by name
			return false, err
		}
	}
	return bytes.Equal(texts[0], texts[1]), nil
}

// lay lays the flags over settings.
func (f *ConfigurationFlags) lay(s *client.ConfigurationSettings) error {
	if f.Where != nil {
		s.TargetCondition = f.condition()
	}
	if f.Priority != nil {
		s.Priority = *f.Priority
	}
	s.Labels = laid(s.Labels, f.Label)
	s.Metrics.Queries = laid(s.Metrics.Queries, f.Metric)
	if len(f.Desired)+len(f.Drop) == 0 {
		return nil
	}
	if s.Content.Modules != nil {
		return usage("the configuration is for the modules of edge devices", "--desired and --drop are for devices, and with --modules for modules; give the content as a file.")
	}
	content := &s.Content.Device
	if f.Modules || s.Content.Module != nil {
		content = &s.Content.Module
	}
	to := maps.Clone(*content)
	if to == nil {
		to = map[string]json.RawMessage{}
	}
	for _, path := range f.Drop {
		key, err := contentKey(path)
		if err != nil {
			return err
		}
		if _, ok := to[key]; !ok {
			return usage(fmt.Sprintf("--drop: the configuration does not set %s", printable(path)), "It sets "+strings.Join(slices.Sorted(maps.Keys(to)), ", ")+".")
		}
		delete(to, key)
	}
	for _, arg := range f.Desired {
		path, value, ok := strings.Cut(arg, "=")
		if !ok {
			return usage(fmt.Sprintf("--desired: %q has no =", arg), "Write PATH=VALUE, such as --desired fan.speed=3.")
		}
		key, err := contentKey(path)
		if err != nil {
			return err
		}
		to[key] = assignValue(value)
	}
	*content = to
	return nil
}

// condition is --where as the hub takes it: of modules it names its source.
func (f *ConfigurationFlags) condition() string {
	text := strings.TrimSpace(*f.Where)
	if word, _, _ := strings.Cut(text, " "); f.Modules && !strings.EqualFold(word, "from") {
		return "from devices.modules where " + text
	}
	return text
}

// contentKey is a path of a desired property as a content names it.
func contentKey(path string) (string, error) {
	path = strings.TrimPrefix(path, "properties.")
	path = strings.TrimPrefix(path, "desired.")
	if path == "" || path == "desired" || slices.Contains(strings.Split(path, "."), "") {
		return "", usage(fmt.Sprintf("%q is not a path of a desired property", path), "Write names with single dots between them, such as fan.speed.")
	}
	return desiredPrefix + "." + path, nil
}

// laid is base with the entries of top; an empty one takes it away.
func laid(base, top map[string]string) map[string]string {
	if len(top) == 0 {
		return base
	}
	out := maps.Clone(base)
	if out == nil {
		out = map[string]string{}
	}
	for key, value := range top {
		if out[key] = value; value == "" {
			delete(out, key)
		}
	}
	return out
}

// configurationFile is a configuration as this program, az and the REST APIs
// write it; what the hub sets is read and not sent.
type configurationFile struct {
	client.Configuration
	CreatedTimeUTC     json.RawMessage `json:"createdTimeUtc"`
	LastUpdatedTimeUTC json.RawMessage `json:"lastUpdatedTimeUtc"`
}

// readConfigurations reads one configuration, or a list of them.
func (a *app) readConfigurations(name string) ([]configurationFile, error) {
	f, name, err := a.openInput(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	raw, err := readDocument(f, name)
	if err != nil {
		return nil, err
	}
	if raw[0] != '[' {
		raw = slices.Concat([]byte("["), raw, []byte("]"))
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var list []configurationFile
	if err := d.Decode(&list); err != nil {
		next := `Write {"id":"fan-lyon","targetCondition":"tags.site = 'lyon'","priority":10,"content":{"deviceContent":{"properties.desired.fan.speed":3}}}.`
		why := strings.TrimPrefix(err.Error(), "json: ")
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			why = fmt.Sprintf("%s is %s", e.Field, e.Value)
		}
		return nil, &problem{exit: ExitUsage, what: name + " is not a configuration", why: why, next: next}
	}
	if len(list) == 0 {
		return nil, usage(name+" holds no configuration", "Write one, or a list of them.")
	}
	return list, nil
}

type configurationTestCmd struct {
	HubFlags
	OutputFlags
	Where   string            `required:"" help:"A condition, such as tags.site = 'lyon', or a predicate: tags.site == \"lyon\"." placeholder:"CONDITION"`
	Modules bool              `help:"It is about modules."`
	Metric  map[string]string `help:"A query of a metric; repeatable." placeholder:"NAME=QUERY" mapsep:"none"`
}

// testRow is what came of a condition or a query.
type testRow struct {
	Name    string `json:"name"`
	Selects *int64 `json:"selects,omitempty"` // of the condition: so many twins now
	Stored  string `json:"stored,omitempty"`  // of a bare predicate: the condition in IoT Hub's language
	Error   string `json:"error,omitempty"`
}

// Run checks a condition and metrics.
func (c *configurationTestCmd) Run(a *app) error {
	flags := ConfigurationFlags{Where: &c.Where, Modules: c.Modules}
	condition := flags.condition()
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	t, err := s.TestConfiguration(ctx, condition, c.Metric)
	if err != nil {
		return err
	}
	rows := []testRow{{Name: "where", Stored: t.Translated, Error: t.TargetCondition}}
	if t.TargetCondition == "" {
		if t.Translated != "" {
			condition = t.Translated
		}
		n, err := countTargets(ctx, s, condition)
		if err != nil {
			return err
		}
		rows[0].Selects = &n
	}
	for _, name := range slices.Sorted(maps.Keys(c.Metric)) {
		rows = append(rows, testRow{Name: name, Error: t.Metrics[name]})
	}
	sh := &sheet{columns: []string{"NAME", "SELECTS NOW", "IS STORED AS", "WRONG"}}
	wrong := 0
	for _, row := range rows {
		var selects any
		if row.Selects != nil {
			selects = *row.Selects
		}
		if sh.add(row, row.Name, selects, row.Stored, row.Error); row.Error != "" {
			wrong++
		}
	}
	if err := a.print(c.OutputFlags, sh); err != nil {
		return err
	}
	if wrong > 0 {
		return &problem{exit: ExitFailed, what: fmt.Sprintf("%d of %d can't be used", wrong, len(rows)), next: "Correct what is named."}
	}
	return nil
}

// countTargets counts the twins that a condition selects now.
func countTargets(ctx context.Context, s *client.Service, condition string) (int64, error) {
	query := "SELECT COUNT() AS n "
	switch word, _, _ := strings.Cut(condition, " "); {
	case condition == "":
		return 0, nil
	case condition == "*":
		query += "FROM devices"
	case strings.EqualFold(word, "from"):
		query += condition
	default:
		query += "FROM devices WHERE " + condition
	}
	p, err := s.Query(ctx, client.QueryAsk{Query: query})
	if err != nil || len(p.Items) == 0 {
		return 0, err
	}
	var row struct{ N int64 }
	err = json.Unmarshal(p.Items[0], &row)
	return row.N, err
}
