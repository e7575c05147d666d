package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

type serveCmd struct {
	ServeFlags
	PrintConfig bool `help:"Print each setting and where it came from, as a config file, and end."`
}

// Run runs the hub.
func (c *serveCmd) Run(a *app) error {
	if c.PrintConfig {
		return a.printConfig(c.ServeFlags)
	}
	if a.hooks.Serve == nil {
		return notBuilt("serve")
	}
	err := a.hooks.Serve(a.ctx, c.ServeFlags, a.io)
	if err == nil {
		return nil
	}
	p := a.explain(err)
	if p.exit == ExitFailed { // nobody classified it: the hub did not start, or did not go on
		p = &problem{exit: ExitConnect, what: "the hub could not start or go on", why: err.Error(), next: p.next}
	}
	return p
}

// printConfig writes the settings as YAML with their origin as comments.
func (a *app) printConfig(f ServeFlags) error {
	v := reflect.ValueOf(f)
	var lines [][2]string
	wide := 0
	for i := range v.NumField() {
		name := fieldFlag(v.Type().Field(i))
		origin := a.settings.origin[name]
		if origin == "" {
			origin = "default"
		}
		field, line := v.Field(i), "# "+name+":" // absent, which no value says
		if field.Kind() != reflect.Pointer {
			line = name + ": " + yamlValue(field.Interface())
		} else if !field.IsNil() {
			line = name + ": " + yamlValue(field.Elem().Interface())
		}
		lines = append(lines, [2]string{line, origin})
		wide = max(wide, displayWidth(line))
	}
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s%s  # %s\n", l[0], strings.Repeat(" ", wide-displayWidth(l[0])), l[1])
	}
	_, err := io.WriteString(a.io.Out, b.String())
	return err
}

// Settings are the flags by name, with values in the form that flags take; nil
// stands for one that is absent.
func (f *ServeFlags) Settings() map[string]any {
	v := reflect.ValueOf(f).Elem()
	list := map[string]any{}
	for i := range v.NumField() {
		field := v.Field(i)
		if field.Kind() == reflect.Pointer {
			if field.IsNil() {
				list[fieldFlag(v.Type().Field(i))] = nil
				continue
			}
			field = field.Elem()
		}
		value := field.Interface()
		if text, ok := value.(fmt.Stringer); ok {
			value = text.String()
		} else if field.Kind() == reflect.Slice && field.IsNil() {
			value = []string{}
		}
		list[fieldFlag(v.Type().Field(i))] = value
	}
	return list
}

func yamlValue(v any) string {
	switch v := v.(type) {
	case []string:
		parts := make([]string, len(v))
		for i, s := range v {
			parts[i] = string(quoteJSON(s))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case string:
		return string(quoteJSON(v))
	}
	return fmt.Sprint(v)
}

type checkConfigCmd struct {
	ServeFlags
	OutputFlags
}

// Run checks the configuration.
func (c *checkConfigCmd) Run(a *app) error {
	file := a.settings.file
	if file == "" {
		file = "no config file"
	}
	list := []Finding{{Check: "settings", Level: "ok", Text: "The settings are valid (" + file + ", environment, flags)."}}
	if a.hooks.CheckConfig != nil {
		more, err := a.hooks.CheckConfig(a.ctx, c.ServeFlags, a.io)
		if err != nil {
			return err
		}
		list = append(list, more...)
	}
	err := a.printFindings(c.OutputFlags, list)
	if p, ok := err.(*problem); ok { //nolint:errorlint // made by printFindings just now
		p.exit = ExitUsage
	}
	return err
}

type statusCmd struct {
	HubFlags
	OutputFlags
	Check bool `help:"Print nothing, and end with 1 when the hub is not ready; for health checks."`
}

// Run shows what the hub does now.
func (c *statusCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	st, err := s.Status(ctx)
	if err != nil {
		return err
	}
	ready := "ready"
	if !st.Hub.Ready {
		ready = "not ready: " + strings.Join(st.Hub.NotReady, ", ")
	}
	if st.Hub.Paused {
		ready += "; restored and not resumed, what is queued is held back"
	}
	if c.Check {
		if !st.Hub.Ready {
			return &problem{exit: ExitFailed, what: "the hub is " + ready, next: "`muster doctor` says what to do."}
		}
		return nil
	}
	fields := []field{
		{"hub", st.Hub.Name},
		{"state", ready},
		{"version", st.Hub.Version},
		{"limits", st.Hub.Limits},
		{"started", st.Hub.StartedTime},
	}
	for _, l := range st.Hub.Listeners {
		fields = append(fields, field{l.Kind, l.Address})
	}
	fields = append(fields,
		field{"devices", st.Devices.Total},
		field{"connected", st.Devices.Connected},
		field{"enabled", st.Devices.Enabled},
		field{"disabled", st.Devices.Disabled},
		field{"modules", st.Modules},
	)
	if text := activeRuns(st.Runs); text != "" {
		fields = append(fields, field{"runs of patterns", text})
	}
	if n, ok := st.Totals["faults"].(float64); ok && n > 0 {
		fields = append(fields, field{"injected faults", int64(n)})
	}
	names := make([]string, 0, len(st.Rates))
	for name := range st.Rates {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fields = append(fields, field{name + " per second", fmt.Sprintf("%.1f", st.Rates[name])})
	}
	var item any = st
	if json.Valid(st.Raw) {
		item = st.Raw
	}
	return a.printRecord(c.OutputFlags, item, fields)
}

// activeRuns counts runs by state; "" when there are none.
func activeRuns(runs map[string]int64) string {
	var parts []string
	for _, s := range pattern.States() {
		if n := runs[string(s)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", s, n))
		}
	}
	return strings.Join(parts, ", ")
}

type versionCmd struct {
	OutputFlags
}

func (a *app) version() string {
	if a.hooks.Version == "" {
		return "unknown"
	}
	return a.hooks.Version
}

// Run prints the version.
func (c *versionCmd) Run(a *app) error {
	if c.Output == "table" {
		_, err := fmt.Fprintf(a.io.Out, "Muster %s (%s %s/%s)\n", a.version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	item := map[string]string{"version": a.version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
	return a.printRecord(c.OutputFlags, item, []field{{"version", a.version()}, {"go", runtime.Version()}, {"os", runtime.GOOS}, {"arch", runtime.GOARCH}})
}

// loopback is an address to dial for one that was listened on: a wildcard
// becomes the loopback address.
func loopback(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// since is a short text for a span, such as 00:14 or 2:03:20.
func since(d time.Duration) string {
	s := int(d.Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}
