package service

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/rollout"
)

// jobBytes bounds the body of a job; the engine's limit job_bytes is for the
// job itself.
const jobBytes = 1 << 20

// jobBody is the body that makes or previews a job.
type jobBody struct {
	jobSpecDocument
	Template string `json:"template,omitempty" doc:"Begin with this template: other members stand over its."`
	Clone    string `json:"clone,omitempty" doc:"Begin with what this job was made with: other members stand over its."`
	Token    string `json:"token,omitempty" doc:"Of a preview: the job is refused if its targets are no longer those."`
	Sample   int    `json:"sample,omitempty" doc:"Of a preview: so many targets are shown, 1 to 1000; 100 when absent."`
}

// jobAsk is what a client asks for.
type jobAsk struct {
	spec   engine.JobSpec
	token  string
	sample int
}

// jobAsk reads the body of a job. base, if it is not empty, is the job of the
// path that it begins with.
func (c *call) jobAsk(base string) (a jobAsk, err error) {
	f, err := c.optionalObject()
	if err != nil {
		return a, err
	}
	template, err := f.text("template")
	if err != nil {
		return a, err
	}
	clone, err := f.text("clone")
	if err != nil {
		return a, err
	}
	if a.token, err = f.text("token"); err != nil {
		return a, err
	}
	n, given, err := f.integer("sample")
	if err != nil {
		return a, err
	}
	if given && (n < 1 || n > pageMost) {
		return a, invalid("sample is %d; expected 1 to %d", n, pageMost)
	}
	a.sample = int(n)
	if base != "" {
		if clone != "" || template != "" {
			return a, invalid("clone and template go with POST /api/v1/jobs; here the path names what the job begins with")
		}
		clone = base
	}
	for _, own := range []string{"template", "clone", "token", "sample"} {
		delete(f.members, own)
	}
	rest := f.raw()
	switch {
	case template != "" && clone != "":
		return a, invalid("template and clone are both there; expected one of them")
	case template != "":
		a.spec, err = c.hub.JobFromTemplate(c.r.Context(), c.caller, template, 0, rest)
		return a, err
	case clone != "":
		if err := decodeJob(rest, new(engine.JobSpec)); err != nil {
			return a, err
		}
		a.spec, err = c.hub.CloneJob(c.r.Context(), c.caller, clone, rest)
		return a, err
	}
	return a, decodeJob(rest, &a.spec)
}

// decodeJob reads a spec over what is in it.
func decodeJob(text json.RawMessage, into *engine.JobSpec) error {
	err := rollout.Decode(text, "", into)
	if faults, ok := errors.AsType[rollout.Faults](err); ok {
		for i := range faults {
			faults[i].Path = strings.TrimPrefix(faults[i].Path, ".") // the document itself has no name
		}
		w := wireOf(engine.CodeArgumentInvalid)
		return &failure{
			status: w.status, number: w.number, name: w.name, code: w.code.String(), text: faults.Error(), next: w.code.Info().Next, faults: faults,
		}
	}
	return err
}

// optionalObject reads a body that is an object, or empty.
func (c *call) optionalObject() (fields, error) {
	data, err := c.read(jobBytes)
	if err != nil {
		return fields{}, err
	}
	if len(data) == 0 {
		return fields{}, nil
	}
	if err := checkJSON(data); err != nil {
		return fields{}, err
	}
	return object(data, "")
}

// optionalMembers is members for a body that may be empty.
func (c *call) optionalMembers(names ...string) (fields, error) {
	f, err := c.optionalObject()
	if err != nil {
		return f, err
	}
	for key := range f.members {
		if !slices.Contains(names, key) {
			return f, invalid("%q is not a member here; expected %s", clip(key), strings.Join(names, ", "))
		}
	}
	return f, nil
}

// raw is the object as JSON again.
func (f fields) raw() json.RawMessage {
	b := []byte{'{'}
	for i, key := range slices.Sorted(maps.Keys(f.members)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, encode(key)...), ':')
		b = append(b, f.members[key]...)
	}
	return append(b, '}')
}
