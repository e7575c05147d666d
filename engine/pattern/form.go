package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/engine/rollout"
)

// Bounds of what a form shows of a schema. Its author may be anybody, and a
// screen is small; what is longer is cut, or entered by hand.
const (
	formTitleMost   = titleMost   // characters
	formTextMost    = summaryMost // characters
	formPatternMost = 100         // characters of a regular expression
	formChoicesMost = 100
	formChoiceMost  = 200     // bytes of a choice
	formValueMost   = 4 << 10 // bytes of a default
)

// Control says with what a parameter is entered.
type Control string

// The controls.
const (
	ControlText     Control = "text"     // a text of one line, or what else may be anything
	ControlLines    Control = "lines"    // a text of several lines
	ControlNumber   Control = "number"   // within bounds
	ControlCheckbox Control = "checkbox" // a boolean that has a default: it is one or the other
	ControlSelect   Control = "select"   // one of some values, and of a boolean without a default
	ControlJSON     Control = "json"     // an object or a list, as JSON
)

// FormField is a parameter as a form shows it. What is entered is a text, as on the
// command line; [Manifest.Fill] reads it.
type FormField struct {
	Name     string   `json:"name" doc:"Of the parameter."`
	Label    string   `json:"label" doc:"Its title, or its name."`
	Help     string   `json:"help,omitempty" doc:"Its description."`
	Expects  string   `json:"expects" doc:"What may be entered, in words."`
	Control  Control  `json:"control" enum:"text,lines,number,checkbox,select,json"`
	Required bool     `json:"required,omitempty"`
	Value    *string  `json:"value,omitempty" doc:"The default, as a text. Absent: there is none, it is too long, or it names a secret."`
	Choices  []string `json:"choices,omitempty" doc:"Of a select."`
	Minimum  *float64 `json:"minimum,omitempty" doc:"Of a number."`
	Maximum  *float64 `json:"maximum,omitempty" doc:"Of a number."`
	Whole    bool     `json:"whole,omitempty" doc:"Of a number: it has no fraction."`
}

// Form is what the parameters are entered with, in the order of
// [Manifest.Parameters].
func (m *Manifest) Form() []FormField {
	list := []FormField{}
	for _, p := range m.Parameters() {
		list = append(list, p.field())
	}
	return list
}

func (p *Parameter) field() FormField {
	f := FormField{Name: p.Name, Label: shorten(p.Title, formTitleMost), Help: shorten(p.Text, formTextMost), Required: p.Required, Choices: p.choices()}
	if p.Default != nil && p.Format != "secret" {
		if text, ok := p.spell(p.Default); ok && len(text) <= formValueMost {
			f.Value = &text
		}
	}
	f.Expects = p.expects(len(f.Choices) > 0)
	switch {
	case len(f.Choices) > 0:
		f.Control = ControlSelect
		if f.Value != nil && !slices.Contains(f.Choices, *f.Value) {
			f.Value = nil
		}
	case p.Type == "boolean" && f.Value != nil:
		f.Control = ControlCheckbox
	case p.Type == "boolean": // a checkbox can't say that nobody has decided
		f.Control, f.Choices = ControlSelect, []string{"true", "false"}
	case p.Type == "integer" || p.Type == "number":
		f.Control, f.Minimum, f.Maximum, f.Whole = ControlNumber, p.Minimum, p.Maximum, p.Type == "integer"
	case p.Type == "object" || p.Type == "array":
		f.Control = ControlJSON
	case f.Value != nil && strings.Contains(*f.Value, "\n"):
		f.Control = ControlLines
	default:
		f.Control = ControlText
	}
	if f.Control == ControlJSON && f.Value != nil {
		*f.Value = indented(*f.Value)
	}
	return f
}

// choices are the values to choose from, as texts; nil when any is taken, or when
// there are too many for a list.
func (p *Parameter) choices() []string {
	if len(p.Enum) > formChoicesMost {
		return nil
	}
	var list []string
	for _, v := range p.Enum {
		text, ok := p.spell(v)
		switch {
		case len(text) > formChoiceMost:
			return nil
		case ok && !slices.Contains(list, text):
			list = append(list, text)
		}
	}
	return list
}

// expects says in words what may be entered.
func (p *Parameter) expects(choices bool) string {
	if choices {
		return "one of these"
	}
	if n := len(p.Enum); n > 0 {
		some := make([]string, 0, 3)
		for _, v := range p.Enum[:min(n, cap(some))] {
			text, _ := p.spell(v)
			some = append(some, shorten(text, 40))
		}
		return fmt.Sprintf("one of %d values, such as %s", n, strings.Join(some, ", "))
	}
	unit := map[string]string{"string": " characters", "array": " entries"}[p.Type]
	parts := []string{p.kindInWords()}
	switch low, high := p.Minimum, p.Maximum; {
	case low != nil && high != nil:
		parts = append(parts, decimal(*low)+" to "+decimal(*high)+unit)
	case low != nil:
		parts = append(parts, "at least "+decimal(*low)+unit)
	case high != nil:
		parts = append(parts, "at most "+decimal(*high)+unit)
	}
	if p.Pattern != "" {
		parts = append(parts, "matching "+shorten(p.Pattern, formPatternMost))
	}
	if p.Format == "secret" && p.Default != nil {
		parts = append(parts, "empty for the pattern's own")
	}
	return strings.Join(parts, ", ")
}

func (p *Parameter) kindInWords() string {
	switch p.Format {
	case "":
	case "duration":
		return "a time span such as 90s, 5m, 6h or 2d"
	case "query":
		return "a condition over twins, or * for every device"
	case "secret":
		return "the name of a secret that the hub keeps, never its value"
	case "regex":
		return "a regular expression"
	default:
		return "a text of the format " + shorten(p.Format, nameMost)
	}
	return typeInWords(p.Type)
}

// spell is the inverse of Value: the text that stands for a value. ok is false
// when none does, as for null where texts are expected.
func (p *Parameter) spell(value json.RawMessage) (text string, ok bool) {
	v, err := plain(value)
	if err != nil {
		return "", false
	}
	text, is := v.(string)
	switch {
	case is && (p.Type == "string" || p.Type == "" && !json.Valid([]byte(strings.TrimSpace(text)))):
		return text, true
	case p.Type == "string":
		return "", false
	}
	return string(marshal(v)), true
}

// Filled is what texts in the fields of a form come to.
type Filled struct {
	Given json.RawMessage // the object of what was given, without what is the default anyway
	// Whole is Given with the defaults, as a run gets it. What was not given and
	// names a secret is left out.
	Whole json.RawMessage
	Texts []string // NAME=TEXT of Given, as flags of the command line take them, in the order of the form
}

// Fill reads the texts in the fields of a form by the names of their parameters,
// as [Parameter.Value] does, and checks them as [Manifest.Complete] does. A field
// that is left empty is not among them. The error is [rollout.Faults] with all
// that is wrong, and does not repeat what was entered for a secret.
func (m *Manifest) Fill(texts map[string]string) (Filled, error) {
	declared := m.Parameters()
	values := map[string]json.RawMessage{}
	unread := rollout.Faults{}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		p := &Parameter{Name: name, Type: "string"} // Complete tells that there is none
		if i := slices.IndexFunc(declared, func(p Parameter) bool { return p.Name == name }); i >= 0 {
			p = &declared[i]
		}
		value, err := p.Value(texts[name])
		if faults, ok := errors.AsType[rollout.Faults](err); ok {
			unread = append(unread, faults...)
			continue
		}
		values[name] = value
	}
	whole, err := m.Complete(marshal(values))
	if faults := bothFaults(unread, err); len(faults) > 0 {
		return Filled{}, hushed(faults, declared)
	}
	out := Filled{}
	all := members(whole)
	for _, p := range declared {
		value, given := values[p.Name]
		if !given && p.Format == "secret" {
			delete(all, p.Name)
		}
		text, ok := p.spell(value)
		if usual, has := p.spell(p.Default); !given || has && ok && usual == text {
			delete(values, p.Name)
			continue
		}
		if !ok { // Value took it from a text, so there is one
			text = texts[p.Name]
		}
		out.Texts = append(out.Texts, p.Name+"="+text)
	}
	out.Given, out.Whole = marshal(values), marshal(all)
	return out, nil
}

// bothFaults adds to the faults of texts that could not be read those of the
// others, which know nothing of the first: to them, those are missing.
func bothFaults(unread rollout.Faults, err error) rollout.Faults {
	others, ok := errors.AsType[rollout.Faults](err)
	if err != nil && !ok {
		others = rollout.Faults{{Path: "params", Reason: err.Error()}}
	}
	all := slices.Clone(unread)
	for _, f := range others {
		if !slices.ContainsFunc(unread, func(u rollout.Fault) bool { return u.Path == f.Path }) {
			all = append(all, f)
		}
	}
	return all[:min(len(all), faultsMost)]
}

// hushed takes what was found out of the faults of secrets: whoever mistakes the
// value for the name finds it nowhere.
func hushed(faults rollout.Faults, declared []Parameter) rollout.Faults {
	for i, f := range faults {
		if slices.ContainsFunc(declared, func(p Parameter) bool { return p.Name == f.Path && p.Format == "secret" }) && f.Reason != "found nothing" {
			faults[i].Reason = "is no name of a secret"
		}
	}
	return faults
}

// shorten cuts a text to so many characters.
func shorten(text string, most int) string {
	n := 0
	for i := range text {
		if n == most {
			return text[:i] + "..."
		}
		n++
	}
	return text
}

// decimal writes a bound as people do, unless that would be long.
func decimal(f float64) string {
	if text := strconv.FormatFloat(f, 'f', -1, 64); len(text) <= 16 {
		return text
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func indented(text string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(text), "", "  ") != nil {
		return text
	}
	return b.String()
}
