package scripting

import "github.com/muster-hub/muster/engine/pattern"

// Execute runs one activation of a program in this process, within the sandbox's
// own bounds. It never fails: what goes wrong is in the outcome.
func Execute(p *Program, a *pattern.Activation) pattern.Outcome {
	return pattern.Outcome{Ending: pattern.EndFailed, Fault: &pattern.Fault{Code: pattern.FaultUnavailable, Message: "not yet"}}
}
