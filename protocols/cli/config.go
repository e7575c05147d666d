package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"

	"github.com/muster-hub/muster/engine/wording"
)

// settings resolves flags that the command line leaves out: the environment
// before the config file. It remembers where each value came from.
type settings struct {
	env    func(string) string
	file   string         // name of the config file; "" = none
	values map[string]any // of the config file, by flag name
	origin map[string]string
}

const maxConfigBytes = 1 << 20

// defaultConfigFiles are read when --config is absent; the first that exists counts.
func defaultConfigFiles() []string { return []string{"muster.yaml", "/etc/muster/muster.yaml"} }

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "MUSTER_" + strings.ReplaceAll(strings.ToUpper(flag), "-", "_")
}

// load reads the config file that the command line or the environment names.
func (s *settings) load(ctx *kong.Context) error {
	name, named := s.env(envName("config")), true
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			name = fmt.Sprint(ctx.FlagValue(p.Flag))
		}
	}
	if name == "" {
		named = false
		for _, f := range defaultConfigFiles() {
			if _, err := os.Stat(f); err == nil {
				name = f
				break
			}
		}
	}
	if name == "" {
		return nil
	}
	data, err := readConfig(name)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return &problem{exit: ExitUsage, what: "the config file cannot be read", why: err.Error(), next: "Check the name and rights of the file, or leave --config out."}
	}
	s.file = name
	s.values, err = parseConfig(data, name)
	return err
}

func readConfig(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err == nil && len(data) > maxConfigBytes {
		err = fmt.Errorf("%s is larger than 1 MiB", name)
	}
	return data, err
}

// parseConfig reads YAML of flag names and values. An unknown name is an error
// that suggests the nearest one.
func parseConfig(data []byte, name string) (map[string]any, error) {
	values := map[string]any{}
	if err := yaml.Unmarshal(data, &values); err != nil {
		return nil, &problem{exit: ExitUsage, what: name + " is not valid YAML", why: firstLine(yaml.FormatError(err, false, false)), next: "Write one `name: value` a line; `muster serve --print-config` shows the form."}
	}
	known := configNames()
	for key, v := range values {
		if !slices.Contains(known, key) {
			p := &problem{exit: ExitUsage, what: fmt.Sprintf("%s has the unknown setting %q", name, key), next: "`muster serve --help` lists the settings."}
			if near := wording.Nearest(key, known); near != "" {
				p.next = fmt.Sprintf("Did you mean %q?", near)
			}
			return nil, p
		}
		fixed, err := configValue(v)
		if err != nil {
			return nil, &problem{exit: ExitUsage, what: fmt.Sprintf("%s: the setting %q %s", name, key, err), next: "Write one value, or a list of values."}
		}
		values[key] = fixed
	}
	return values, nil
}

// configValue is a YAML value as kong's parsers take it: a text, or a list.
func configValue(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, errors.New("has no value")
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			if _, bad := e.([]any); bad || e == nil || reflect.TypeOf(e).Kind() == reflect.Map {
				return nil, errors.New("has a list in which not every element is a single value")
			}
			out[i] = fmt.Sprint(e)
		}
		return out, nil
	case bool:
		return v, nil
	}
	if reflect.TypeOf(v).Kind() == reflect.Map {
		return nil, errors.New("is a map")
	}
	return fmt.Sprint(v), nil
}

// clientSettings are the names beside serve's that a config file may hold;
// they apply to the commands that talk to a hub.
func clientSettings() []string { return []string{"data", "hub", "ca", "port", "timeout", "output"} }

// configNames lists every name that a config file may hold.
func configNames() []string {
	names := clientSettings()
	for _, f := range serveFlagNames() {
		if !slices.Contains(names, f) {
			names = append(names, f)
		}
	}
	slices.Sort(names)
	return names
}

func serveFlagNames() []string {
	var names []string
	t := reflect.TypeFor[ServeFlags]()
	for i := range t.NumField() {
		names = append(names, fieldFlag(t.Field(i)))
	}
	return names
}

// fieldFlag is the flag name that kong gives a field.
func fieldFlag(f reflect.StructField) string {
	if n := f.Tag.Get("name"); n != "" {
		return n
	}
	var b strings.Builder
	for i, r := range f.Name {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// Validate has nothing to check: load has done it.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve finds a flag's value in the environment, then in the config file.
// The config file's serve settings reach only the commands that configure a
// hub, so that `key: server.pem` never becomes another command's --key.
func (s *settings) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if v := s.env(envName(flag.Name)); v != "" && flag.Name != "help" {
		s.origin[flag.Name] = "environment " + envName(flag.Name)
		if flag.IsSlice() {
			var list []any
			for part := range strings.SplitSeq(v, ",") {
				list = append(list, strings.TrimSpace(part))
			}
			return list, nil
		}
		return v, nil
	}
	v, ok := s.values[flag.Name]
	if !ok || !configures(ctx) && !slices.Contains(clientSettings(), flag.Name) {
		return nil, nil
	}
	s.origin[flag.Name] = "file " + s.file
	if list, isList := v.([]any); isList != flag.IsSlice() {
		if isList {
			return nil, fmt.Errorf("%s has a list of %d values, expected one", s.file, len(list))
		}
		return []any{fmt.Sprint(v)}, nil
	}
	return v, nil
}

// configures says whether the selected command takes a hub's settings.
func configures(ctx *kong.Context) bool {
	n := ctx.Selected()
	return n != nil && n.Parent != nil && n.Parent.Parent == nil && (n.Name == "serve" || n.Name == "check-config")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
