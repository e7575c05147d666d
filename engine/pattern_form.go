package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
)

// PatternForm is what those see of a pattern who may see how the hub stands:
// enough to choose one and to enter its parameters, nothing of its program and of
// what its runs do.
type PatternForm struct {
	Name, Version  string
	Title, Summary string
	Enabled        bool
	Default        bool                // it is run when no version is named
	Fleet          bool                // it runs once, for the fleet as a whole, and has no targets
	Preview        bool                // a job of it needs a preview's token
	Fields         []pattern.FormField // nil in a list
}

// FormEntry is what was entered in a pattern's form.
type FormEntry struct {
	Texts map[string]string // by parameter; see pattern.Manifest.Fill
	Where string            // targets: devices that this predicate matches; or
	IDs   []TwinID          // these
}

// FormCheck is what an entry comes to.
type FormCheck struct {
	PatternForm
	Filled pattern.Filled // zero when something is wrong with the parameters
	Faults rollout.Faults // all that is wrong, with paths such as "params.delay" and "targets.where"
}

// PatternForms lists every installed version of every pattern, in the order of
// Patterns. It needs StatusRead.
func (h *Hub) PatternForms(ctx context.Context, c Caller) ([]PatternForm, error) {
	if err := h.authorize(ctx, c, opPatternForm, "*"); err != nil {
		return nil, err
	}
	list, err := h.everyPattern(ctx)
	forms := make([]PatternForm, 0, len(list))
	for i := range list {
		forms = append(forms, formOf(&list[i].Manifest, list[i].Enabled, list[i].Default))
	}
	return forms, err
}

// PatternForm returns the form of a version of a pattern, of the default one when
// version is empty. CodePatternNotFound. It needs StatusRead.
func (h *Hub) PatternForm(ctx context.Context, c Caller, name, version string) (PatternForm, error) {
	form, manifest, err := h.patternForm(ctx, c, name, version)
	if err == nil {
		form.Fields = manifest.Form()
	}
	return form, err
}

// CheckPatternForm says what a run or a job would be refused for that is begun
// with such an entry, as far as that can be told without its targets. Nothing is
// begun. Errors and permission are those of PatternForm.
func (h *Hub) CheckPatternForm(ctx context.Context, c Caller, name, version string, e FormEntry) (FormCheck, error) {
	form, manifest, err := h.patternForm(ctx, c, name, version)
	if err != nil {
		return FormCheck{}, err
	}
	out := FormCheck{PatternForm: form}
	out.Filled, err = manifest.Fill(e.Texts)
	if faults, ok := errors.AsType[rollout.Faults](err); ok {
		for _, f := range faults {
			if f.Path != "params" { // which is about all of them
				f.Path = "params." + f.Path
			}
			out.Faults = append(out.Faults, f)
		}
	} else if err != nil {
		return FormCheck{}, err
	}
	if fault, wrong := h.checkFormTargets(&form, e); wrong {
		out.Faults = append(out.Faults, fault)
	}
	return out, nil
}

func (h *Hub) patternForm(ctx context.Context, c Caller, name, version string) (PatternForm, *pattern.Manifest, error) {
	if err := h.authorize(ctx, c, opPatternForm, name); err != nil {
		return PatternForm{}, nil, err
	}
	p, err := h.readPattern(ctx, name, version)
	return formOf(&p.Manifest, p.Enabled, p.Default), &p.Manifest, err
}

func formOf(m *pattern.Manifest, enabled, byDefault bool) PatternForm {
	return PatternForm{
		Name: m.Name, Version: m.Version, Title: m.Title, Summary: m.Summary, Enabled: enabled, Default: byDefault,
		Fleet: m.Scope == pattern.ScopeFleet, Preview: m.Danger || m.Most > 0,
	}
}

// checkFormTargets says what is wrong with the targets: by the rules of jobs, but
// for the words of those who have a form before them.
func (h *Hub) checkFormTargets(form *PatternForm, e FormEntry) (rollout.Fault, bool) {
	path := "targets.where"
	if e.Where == "" {
		path = "targets.ids"
	}
	switch given := e.Where != "" || len(e.IDs) > 0; {
	case form.Fleet && given:
		return rollout.Fault{Path: path, Reason: "is there", Expected: "nothing: the pattern runs once, for the fleet as a whole"}, true
	case form.Fleet:
		return rollout.Fault{}, false
	case e.Where != "" && len(e.IDs) > 0:
		return rollout.Fault{Path: path, Reason: "is there beside ids of devices", Expected: "one of them"}, true
	case !given:
		return rollout.Fault{Path: "targets", Reason: "are missing", Expected: "ids of devices, or a condition"}, true
	}
	_, err := h.parseTargets(&JobSpec{Targets: JobTargets{Where: e.Where, IDs: e.IDs}}, savedText{})
	if wrong, ok := errors.AsType[*query.Error](err); ok {
		return rollout.Fault{Path: path, Reason: fmt.Sprintf("has %s at column %d", wrong.Found, wrong.Column()), Expected: wrong.Expected}, true
	}
	if err != nil {
		return rollout.Fault{Path: path, Reason: AsError(err).Message}, true
	}
	return rollout.Fault{}, false
}
