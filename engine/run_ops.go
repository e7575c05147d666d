package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/engine/rollout"
)

// The operations of steps that are looked at by name.
const (
	opCall       = "dev.call"
	opWait       = "dev.wait"
	opChild      = "dev.run"
	opApprove    = "ctx.approve"
	opHTTP       = "ctx.http"
	opFleetQuery = "fleet.query"
	opFleetCount = "fleet.count"
	opFleetGroup = "fleet.group_by"
	opFleetRun   = "fleet.run"
)

// refJob begins the Ref of a step that waits for a job.
const refJob = "job:"

// jobOfRef returns the job that a step waits for, "" when it waits for none.
func jobOfRef(ref string) string {
	job, _ := strings.CutPrefix(ref, refJob)
	if job == ref {
		return ""
	}
	return job
}

// stepOperation is what the owner of a run must be allowed to do for a step; none
// is needed for what concerns the run alone.
func stepOperation(op string) (o operation, needed bool) {
	switch op {
	case "dev.get", "dev.twin", opWait:
		return opTwinRead, true
	case "dev.desire", "dev.tag":
		return opTwinUpdate, true
	case opCall:
		return opMethodInvoke, true
	case "dev.send":
		return opMessageSend, true
	case "dev.rotate_key":
		return opIdentityKeys, true
	case "dev.quarantine", "dev.release":
		return opIdentityUpdate, true
	case "dev.replace":
		return opIdentityCreate, true
	case opChild:
		return opRunStart, true
	case opFleetRun:
		return opJobCreate, true
	case opFleetQuery, opFleetCount, opFleetGroup:
		return opQuery, true
	}
	return 0, false
}

// runCaller returns the caller as whom a run acts now: its owner, with the
// permissions that the owner has at the moment. The fault says why it may not.
func (h *Hub) runCaller(id string, r *runRecord) (Caller, *pattern.Fault) {
	p := r.Owner.principal()
	switch p.Kind {
	case auth.Local:
		p.Permissions = auth.AllPermissions
	case auth.Policy:
		policy, ok := (*h.policies.Load())[p.Name]
		if !ok {
			return Caller{}, faultf(pattern.FaultDenied, "the shared access policy %q, with whose permissions the run acts, was deleted", p.Name)
		}
		p.Permissions = policy.Permissions
	default:
		return Caller{}, faultf(pattern.FaultDenied, "the run was started by %s, who may not run patterns", p)
	}
	return Caller{Principal: p, Cause: causeRun + id}, nil
}

// causeRun begins the cause of what a run does.
const causeRun = "run:"

// mayStep says why the caller of a run may not take a step; nil: it may.
func mayStep(c Caller, op string) *pattern.Fault {
	o, needed := stepOperation(op)
	if !needed || c.Permissions.Has(o.info().Permission) {
		return nil
	}
	return faultf(pattern.FaultDenied, "%s needs the permission %s, which %s, who started the run, does not have", op, o.info().Permission, c.Principal)
}

func faultf(code pattern.FaultCode, format string, args ...any) *pattern.Fault {
	return &pattern.Fault{Code: code, Message: fmt.Sprintf(format, args...)}
}

// runFault makes a fault, which the program finds, of an error of the engine's;
// of one that has nothing to do with the program it is still the error.
func runFault(err error) (*pattern.Fault, error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return nil, err
	}
	var code pattern.FaultCode
	switch e.Code {
	case CodeDeviceNotFound, CodeModuleNotFound, CodePatternNotFound, CodeSecretNotFound, CodeRunNotFound, CodeJobNotFound:
		code = pattern.FaultGone
	case CodeArgumentInvalid, CodeArgumentNull:
		code = pattern.FaultInvalid
	case CodeTooLarge:
		code = pattern.FaultTooBig
	case CodeUnauthorized, CodeForbidden:
		code = pattern.FaultDenied
	case CodeDeviceAlreadyExists, CodeModuleAlreadyExists, CodePreconditionFailed:
		code = pattern.FaultConflict
	case CodeInternal, CodeReadOnly, CodeUnavailable, CodeUncertain, CodeClosed, CodeCanceled, CodeGatewayTimeout:
		return nil, err
	default:
		code = pattern.FaultRejected
	}
	return &pattern.Fault{Code: code, Message: e.Message}, nil
}

// readArgs reads the arguments of a step.
func readArgs[A any](s *pattern.Step) (a A, f *pattern.Fault) {
	if len(s.Args) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(s.Args, &a); err != nil {
		return a, faultf(pattern.FaultInvalid, "%s: its arguments are not what it takes: %v", s.Op, err)
	}
	return a, nil
}

// stepDuration reads a duration among the arguments of a step; empty is other.
func stepDuration(s *pattern.Step, name, text string, other, most time.Duration) (time.Duration, *pattern.Fault) {
	if text == "" {
		return other, nil
	}
	d, err := rollout.ParseDuration(text)
	if err != nil {
		return 0, faultf(pattern.FaultInvalid, "%s: %s: %v", s.Op, name, err)
	}
	if time.Duration(d) > most {
		return 0, faultf(pattern.FaultInvalid, "%s: %s is %s, at most %s are allowed", s.Op, name, d, rollout.Duration(most))
	}
	return time.Duration(d), nil
}
