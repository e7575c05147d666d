package simulator

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

//go:embed behaviours/*.yaml
var behaviours embed.FS

// maxBehaviour is the most bytes that a behaviour file may have.
const maxBehaviour = 64 << 10

// Behaviour is what each device of a load fleet does, except those of a cohort
// that has trouble. Durations are varied by
// half of themselves either way, except together.
type Behaviour struct {
	Description  string        `yaml:"description"`
	Firmware     string        `yaml:"firmware"`      // reported; default 2.0.0
	Interval     time.Duration `yaml:"interval"`      // between two messages; default 10 s
	ReportEvery  int           `yaml:"report_every"`  // messages between two reports; default 3
	DropEvery    time.Duration `yaml:"drop_every"`    // 0 = never loses its network
	Away         time.Duration `yaml:"away"`          // how long the network is gone
	Together     bool          `yaml:"together"`      // all devices drop in one moment
	MethodDelay  time.Duration `yaml:"method_delay"`  // before a method's answer
	MethodStatus int           `yaml:"method_status"` // default 200
	ClockSkew    time.Duration `yaml:"clock_skew"`    // added to the device's clock

	// Managed devices do what patterns ask of them, as docs/reference/behaviours.md
	// says. Restart is how long one is away then, Stage how long each stage of its
	// work takes.
	Managed bool          `yaml:"managed"`
	Restart time.Duration `yaml:"restart"` // default 2 s
	Stage   time.Duration `yaml:"stage"`   // default 300 ms

	Tags    map[string]Values `yaml:"tags"`    // given to devices when they are made
	Cohorts []Cohort          `yaml:"cohorts"` // parts of the fleet that have trouble
}

// Values are the values of a tag, which devices have in turn. In a file, one may
// stand alone.
type Values []string

// UnmarshalYAML reads a value or a list of them.
func (v *Values) UnmarshalYAML(read func(any) error) error {
	var one string
	if read(&one) == nil {
		*v = Values{one}
		return nil
	}
	var list []string
	if err := read(&list); err != nil {
		return err
	}
	*v = list
	return nil
}

// ParseBehaviour reads a behaviour strictly: unknown fields are errors, which
// name their line as [line:column].
func ParseBehaviour(text []byte) (Behaviour, error) {
	var b Behaviour
	if len(text) > maxBehaviour {
		return b, fmt.Errorf("the behaviour has %d bytes, at most %d are allowed", len(text), maxBehaviour)
	}
	if err := yaml.UnmarshalWithOptions(text, &b, yaml.Strict()); err != nil {
		line, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		if !strings.HasPrefix(line, "[") {
			line = fmt.Sprintf("[%d:1] %s", badDuration(text), line) // the library names no line for a duration
		}
		return b, errors.New(line)
	}
	if b.Firmware == "" {
		b.Firmware = currentFirmware
	}
	if b.Interval == 0 {
		b.Interval = 10 * time.Second
	}
	if b.ReportEvery == 0 {
		b.ReportEvery = reportEvery
	}
	if b.MethodStatus == 0 {
		b.MethodStatus = 200
	}
	b.Restart, b.Stage = cmp.Or(b.Restart, defaultRestart), cmp.Or(b.Stage, defaultStage)
	return b, b.check(text)
}

// check names the line of the first field that is out of bounds.
func (b *Behaviour) check(text []byte) error {
	for _, c := range []struct {
		field string
		ok    bool
		want  string
	}{
		{"firmware", len(b.Firmware) <= 64, "at most 64 characters"},
		{"interval", b.Interval >= 10*time.Millisecond && b.Interval <= 24*time.Hour, "10ms to 24h"},
		{"report_every", b.ReportEvery >= 1 && b.ReportEvery <= 1e6, "1 to 1000000"},
		{"drop_every", b.DropEvery == 0 || b.DropEvery >= time.Second && b.DropEvery <= 24*time.Hour, "1s to 24h, or 0 for never"},
		{"away", b.Away >= 0 && b.Away <= time.Hour, "0s to 1h"},
		{"method_delay", b.MethodDelay >= 0 && b.MethodDelay <= 5*time.Minute, "0s to 5m"},
		{"method_status", b.MethodStatus >= 100 && b.MethodStatus <= 999, "100 to 999"},
		{"restart", b.Restart >= time.Millisecond && b.Restart <= 20*time.Second, "1ms to 20s"},
		{"stage", b.Stage >= time.Millisecond && b.Stage <= time.Minute, "1ms to 1m"},
		{"clock_skew", b.ClockSkew.Abs() <= 100*365*24*time.Hour, "at most a hundred years"},
	} {
		if !c.ok {
			return fmt.Errorf("[%d:1] %s is out of bounds, expected %s", lineOf(string(text), c.field), c.field, c.want)
		}
	}
	return b.checkCohorts(text)
}

// badDuration finds the line whose duration cannot be read.
func badDuration(text []byte) int {
	var fields map[string]any
	if yaml.Unmarshal(text, &fields) != nil {
		return 1
	}
	for _, name := range []string{"interval", "drop_every", "away", "method_delay", "clock_skew", "restart", "stage"} {
		if v, ok := fields[name].(string); ok {
			if _, err := time.ParseDuration(v); err != nil {
				return lineOf(string(text), name)
			}
		}
	}
	return 1
}

func lineOf(text, field string) int {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if strings.HasPrefix(line, field+":") {
			return n
		}
	}
	return 1
}

// BehaviourNames are the built-in behaviours, in order.
func BehaviourNames() []string {
	entries, err := fs.ReadDir(behaviours, "behaviours")
	if err != nil {
		return nil // the directory is part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// BehaviourText is the text of a built-in behaviour or, when name has a slash
// or ends in .yaml or .yml, of a file.
func BehaviourText(name string) ([]byte, error) {
	if strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
		return os.ReadFile(name)
	}
	text, err := fs.ReadFile(behaviours, "behaviours/"+name+".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no behaviour %q, expected a file ending in .yaml or one of %s", name, strings.Join(BehaviourNames(), ", "))
	}
	return text, nil
}
