package engine

import (
	"errors"
	"math"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
)

const (
	// runToldEvery is how often the change log is told at most of a run's progress,
	// and runToldStep by how much it must have moved then.
	runToldEvery = 2 * time.Second
	runToldStep  = 0.05
)

// tellRun writes what is to be known of a run that moved: that it began, asks a
// person, is to end or has ended, and from time to time how far it is.
func (t *runTx) tellRun(r *runInTx, ended bool) error {
	s := &r.State
	open := s.Open()
	asks := open != nil && open.Op == opApprove
	stops := s.Cancel != nil
	began := !r.begun && !r.Started.IsZero()
	tell := began || ended || asks && !r.asked || stops && !r.stops
	r.begun, r.asked, r.stops = r.begun || began, asks, stops
	var err error
	if tell {
		err = appendChange(t.Tx, hubCaller(causeRun+r.id), changeRun, r.device(), 0, r.status())
	}
	p := &s.Report
	news := p.Phase != r.Told.Phase || math.Abs(p.Progress-r.Told.Progress) >= runToldStep
	if !news || ended || t.Now().Sub(r.Told.At) < runToldEvery {
		return err
	}
	r.Told = runTold{t.Now(), p.Phase, p.Progress}
	m := r.members()
	m.textUnlessEmpty("phase", p.Phase)
	m.number("percent", int64(math.Round(p.Progress*100)))
	m.textUnlessEmpty("text", clip(p.Text))
	return errors.Join(err, appendChange(t.Tx, hubCaller(causeRun+r.id), changeRunStep, r.device(), 0, m.end()))
}

// members begins what an event of a run says.
func (r *runInTx) members() members {
	m := beginMembers(make([]byte, 0, 192))
	m.text("run", r.id)
	m.text("pattern", r.Pattern)
	m.text("version", r.Version)
	if r.Job != nil {
		m.text("job", r.Job.Job)
	}
	return m
}

// status is what an event of a run's state says.
func (r *runInTx) status() []byte {
	s := &r.State
	m := r.members()
	m.text("status", string(s.State))
	m.textUnlessEmpty("phase", s.Report.Phase)
	if s.Entry == pattern.EntryUndo {
		m.text("entry", string(s.Entry))
	}
	if question := r.question(); question != "" {
		m.text("question", clip(question))
	}
	if s.Fault != nil {
		m.text("code", string(s.Fault.Code))
		m.text("message", clip(s.Fault.Message))
	} else if s.Cancel != nil {
		m.text("reason", clip(s.Cancel.Message))
	}
	return m.end()
}

// question is what a person is asked; empty: nothing.
func (r *runRecord) question() string {
	s := r.State.Open()
	if s == nil || s.Op != opApprove {
		return ""
	}
	a, _ := readArgs[pattern.ApproveArgs](s)
	return a.Question
}
