package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/wording"
)

// ParamFlags are the parameters of a run.
type ParamFlags struct {
	Param  []string `short:"p" help:"A parameter, repeatable; its name and type are in muster pattern show." placeholder:"NAME=VALUE" sep:"none" group:"Run"`
	Params string   `help:"File with parameters, a JSON or YAML object; --param stands above it." placeholder:"FILE" group:"Run"`
}

// parameters are what the flags say, checked as the hub will, with defaults.
func (f *ParamFlags) parameters(m *pattern.Manifest) (json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	if f.Params != "" {
		if err := paramsFile(f.Params, &values); err != nil {
			return nil, err
		}
	}
	declared := m.Parameters()
	show := fmt.Sprintf("`muster pattern show %s` shows its parameters.", m.Name)
	for _, text := range f.Param {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usage(fmt.Sprintf("--param is %q", printable(text)), "Write NAME=VALUE. "+show)
		}
		i := slices.IndexFunc(declared, func(p pattern.Parameter) bool { return p.Name == name })
		if i < 0 {
			next := show
			names := parameterNames(declared)
			if near := wording.Nearest(name, names); near != "" {
				next = fmt.Sprintf("Did you mean %s? %s", near, show)
			} else if len(names) > 0 {
				next = fmt.Sprintf("It has %s. %s", brieflyJoined(names, 2*briefMost), show)
			}
			return nil, usage(fmt.Sprintf("%s has no parameter %q", m.Name, printable(name)), next)
		}
		raw, err := declared[i].Value(value)
		if err != nil {
			return nil, usage("--param "+printable(err.Error()), show)
		}
		if twice := memberTwice(raw); twice != "" {
			return nil, usage(fmt.Sprintf("--param %s: it has the member %q twice", name, printable(twice)), show)
		}
		values[name] = raw
	}
	raw, err := json.Marshal(values)
	if err != nil {
		return nil, err
	}
	whole, err := m.Complete(raw)
	if err == nil {
		return whole, nil
	}
	return nil, &problem{exit: ExitUsage, what: "the parameters of " + m.Name + " are not right", why: err.Error(), next: show}
}

func parameterNames(list []pattern.Parameter) []string {
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	return names
}

// paramsFile reads an object from a file, JSON or YAML.
func paramsFile(name string, into *map[string]json.RawMessage) error {
	data, err := readBounded(name, jobFileMost)
	if err != nil {
		return err
	}
	if len(data) > jobFileMost {
		return usage(printable(name)+" is larger than 1 MiB", fmt.Sprintf("The parameters of a run have %d bytes at most; what is larger, a device fetches from the hub's files.", pattern.MaxValue))
	}
	const next = "Write the parameters as a JSON or YAML object."
	raw, err := readObject(data, printable(name), next)
	if err != nil {
		return err
	}
	if json.Unmarshal(raw, into) != nil || *into == nil {
		return usage(printable(name)+" is not an object", next)
	}
	return nil
}

// memberTwice names a member that an object in a valid JSON text has twice, ""
// when none has: of two values nobody knows which one is meant.
func memberTwice(raw json.RawMessage) string {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var open []map[string]bool // members so far; nil of an array
	name := true               // in an object, a name is next
	for {
		t, err := d.Token()
		if err != nil {
			return ""
		}
		inside := len(open) > 0 && open[len(open)-1] != nil
		if text, ok := t.(string); ok && inside && name {
			if open[len(open)-1][text] {
				return text
			}
			open[len(open)-1][text] = true
			name = false
			continue
		}
		switch t {
		case json.Delim('{'):
			open = append(open, map[string]bool{})
		case json.Delim('['):
			open = append(open, nil)
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
		name = true
	}
}

// parameterType is the type of a parameter with its bounds, for people.
func parameterType(p *pattern.Parameter) string {
	if len(p.Enum) > 0 {
		words := make([]string, len(p.Enum))
		for i, v := range p.Enum {
			words[i] = strings.Trim(string(v), `"`)
		}
		return strings.Join(words, "|")
	}
	text := p.Type
	if p.Format != "" {
		text = p.Format
	}
	if text == "" {
		text = "any"
	}
	least, most := "", ""
	if p.Minimum != nil {
		least = number(*p.Minimum)
	}
	if p.Maximum != nil {
		most = number(*p.Maximum)
	}
	switch {
	case least != "" && most != "":
		text += " " + least + " to " + most
	case least != "":
		text += " from " + least
	case most != "":
		text += " to " + most
	}
	return text
}

// parameterCandidates complete NAME=VALUE.
func parameterCandidates(m *pattern.Manifest, last string) []string {
	name, value, given := strings.Cut(last, "=")
	var out []string
	for _, p := range m.Parameters() {
		switch {
		case !given && strings.HasPrefix(p.Name, last):
			text := parameterType(&p)
			if p.Text != "" {
				text += ": " + p.Text
			}
			out = append(out, p.Name+"=\t"+text)
		case given && p.Name == name:
			words := []string{"true", "false"}
			if p.Type != "boolean" {
				words = nil
			}
			for _, v := range p.Enum {
				words = append(words, strings.Trim(string(v), `"`))
			}
			for _, w := range candidates(words, value) {
				out = append(out, name+"="+w)
			}
		}
	}
	return out
}
