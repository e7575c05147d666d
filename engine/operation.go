package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// operation names an exported operation of the hub: what the audit shows and
// which permission it needs.
type operation uint8

const (
	opIdentityRead operation = iota
	opIdentityCreate
	opIdentityUpdate
	opIdentityDelete
	opIdentityKeys
	opStatistics
	opTwinRead
	opTwinUpdate
	opTwinReplace
	opTwinRestore
	opQuery
	opQueryLive
	opMethodInvoke
	opMethodQueue
	opMethodRead
	opMethodCancel
	opMessageSend
	opMessageRead
	opMessagePurge
	opFeedback
	opFileRead
	opFileDelete
	opFileNotification
	opEventRead
	opPolicyRead
	opPolicyWrite
	opPolicyDelete
	opPolicyRotate
	opWebhookRead
	opWebhookWrite
	opWebhookTest
	opWebhookReplay
	opWebhookDead
	opSavedQueryRead
	opSavedQueryWrite
	opSchemaRead
	opSchemaWrite
	opJobRead
	opJobCreate
	opJobControl
	opJobApprove
	opJobTemplateWrite
	opPatternRead
	opPatternForm
	opPatternWrite
	opPatternTrust
	opPatternSecret
	opRunRead
	opRunStart
	opRunControl
	opRunApprove
	opConfigurationRead
	opConfigurationWrite
	opConfigurationApply
	opExplain
	opIdentityImport
	opIdentityExport
	opIdentityJobRead
	opContainerRead
	opContainerWrite
	opAuditRead
	opStatusRead
	opBackupRead
	opBackupCreate
	opFaultRead
	opFaultWrite
	opDoctor
	opAuthenticate
)

// throttle names the limiter that an operation counts against.
type throttle uint8

const (
	throttleNone throttle = iota
	throttleRegistry
	throttleTwinRead
	throttleTwinUpdate
	throttleQuery
	throttleMethod
	throttleConnect
	throttleUpload
	throttleJob
	throttleConfiguration
	throttleEnd
)

// OperationInfo is a row of the table of operations, from which the
// documentation of permissions is made.
type OperationInfo struct {
	Name       string
	Permission auth.Permission
	Text       string

	throttle throttle
}

// operationTable has one row for each operation, in order.
var operationTable = [...]OperationInfo{
	{"identity.read", auth.RegistryRead, "Read or list device and module identities.", throttleRegistry},
	{"identity.create", auth.RegistryWrite, "Create an identity with its twin.", throttleRegistry},
	{"identity.update", auth.RegistryWrite, "Replace an identity.", throttleRegistry},
	{"identity.delete", auth.RegistryWrite, "Delete an identity with its twin and modules.", throttleRegistry},
	{"identity.keys", auth.RegistryWrite, "Read connection strings or regenerate keys.", throttleRegistry},
	{"statistics.read", auth.RegistryRead, "Count identities and sessions.", throttleNone},
	{"twin.read", auth.ServiceConnect, "Read a twin or its history.", throttleTwinRead},
	{"twin.update", auth.ServiceConnect, "Merge tags and desired properties into a twin.", throttleTwinUpdate},
	{"twin.replace", auth.ServiceConnect, "Replace tags or desired properties.", throttleTwinUpdate},
	{"twin.restore", auth.ServiceConnect, "Take tags or desired properties back to an earlier state.", throttleTwinUpdate},
	{"query", auth.ServiceConnect, "Query twins.", throttleQuery},
	{"query.live", auth.ServiceConnect, "Follow a query's result.", throttleNone},
	{"method.invoke", auth.ServiceConnect, "Invoke a direct method.", throttleMethod},
	{"method.queue", auth.ServiceConnect, "Queue a direct method until the device is there.", throttleMethod},
	{"method.read", auth.ServiceConnect, "Read or list queued method calls.", throttleTwinRead},
	{"method.cancel", auth.ServiceConnect, "Cancel a queued method call.", throttleMethod},
	{"message.send", auth.ServiceConnect, "Send a cloud-to-device message.", throttleNone},
	{"message.read", auth.ServiceConnect, "List a device's waiting cloud-to-device messages.", throttleNone},
	{"message.purge", auth.ServiceConnect, "Remove a device's waiting cloud-to-device messages.", throttleNone},
	{"message.feedback", auth.ServiceConnect, "Receive and settle feedback of cloud-to-device messages.", throttleNone},
	{"file.read", auth.ServiceConnect, "List and download files that devices have uploaded.", throttleNone},
	{"file.delete", auth.ServiceConnect, "Delete a file that a device has uploaded.", throttleNone},
	{"file.notification", auth.ServiceConnect, "Receive and settle notifications of files.", throttleNone},
	{"event.read", auth.ServiceConnect, "Read changes and telemetry as events.", throttleNone},
	{"policy.read", auth.PolicyManage, "Read shared access policies with their keys.", throttleNone},
	{"policy.write", auth.PolicyManage, "Create or change a shared access policy.", throttleNone},
	{"policy.delete", auth.PolicyManage, "Delete a shared access policy.", throttleNone},
	{"policy.rotate", auth.PolicyManage, "Give a shared access policy a new key.", throttleNone},
	{"webhook.read", auth.HubManage, "Read webhooks, their state and dead letters.", throttleNone},
	{"webhook.write", auth.HubManage, "Create, change or delete a webhook, or give it a new secret.", throttleNone},
	{"webhook.test", auth.HubManage, "Post a test event to a webhook.", throttleNone},
	{"webhook.replay", auth.HubManage, "Set where a webhook goes on.", throttleNone},
	{"webhook.dead", auth.HubManage, "Post a webhook's dead letter again, or delete it.", throttleNone},
	{"query.saved.read", auth.ServiceConnect, "Read saved queries.", throttleNone},
	{"query.saved.write", auth.ServiceConnect, "Save or delete a query.", throttleNone},
	{"schema.read", auth.ServiceConnect, "See which paths twins have, and the declared schema.", throttleNone},
	{"schema.write", auth.HubManage, "Declare a schema for twins, or drop it.", throttleNone},
	{"job.read", auth.ServiceConnect, "Read jobs, their executions and templates, or preview a job.", throttleJob},
	{"job.create", auth.ServiceConnect, "Create a job.", throttleJob},
	{"job.control", auth.ServiceConnect, "Pause, resume, cancel or retry a job.", throttleJob},
	{"job.approve", auth.ServiceConnect, "Let a job that waits for approval go on.", throttleJob},
	{"job.template.write", auth.ServiceConnect, "Save or delete a job template.", throttleNone},
	{"pattern.read", auth.ServiceConnect, "Read patterns, their manifests, files and cost.", throttleNone},
	{"pattern.form", auth.StatusRead, "See which patterns there are and what parameters they take, or check parameters before a run.", throttleNone},
	{"pattern.write", auth.HubManage, "Install a pattern and grant what it needs, enable, disable or remove it.", throttleNone},
	{"pattern.trust", auth.HubManage, "Trust a key that signs patterns, or trust it no more.", throttleNone},
	{"pattern.secret", auth.HubManage, "Set or delete a secret that patterns use, or list their names.", throttleNone},
	{"run.read", auth.ServiceConnect, "Read runs of patterns, their steps and logs.", throttleNone},
	{"run.start", auth.ServiceConnect, "Start a run of a pattern.", throttleNone},
	{"run.control", auth.ServiceConnect, "Cancel, undo or retry a run.", throttleNone},
	{"run.approve", auth.ServiceConnect, "Decide what a run asks.", throttleNone},
	{"configuration.read", auth.ServiceConnect, "Read configurations, their revisions and metrics, or test their queries.", throttleConfiguration},
	{"configuration.write", auth.ServiceConnect, "Create, change, roll back or delete a configuration.", throttleConfiguration},
	{"configuration.apply", auth.ServiceConnect, "Apply configuration content to one edge device.", throttleConfiguration},
	{"explain", auth.ServiceConnect, "See who set each desired property of a device, and why.", throttleTwinRead},
	{"identity.import", auth.RegistryWrite, "Import identities as a job, or cancel it.", throttleRegistry},
	{"identity.export", auth.RegistryWrite, "Export identities as a job, with their keys unless these are left out, or cancel it.", throttleRegistry},
	{"identity.job.read", auth.RegistryRead, "Read import and export jobs.", throttleRegistry},
	{"container.read", auth.RegistryRead, "List containers of blobs.", throttleNone},
	{"container.write", auth.RegistryWrite, "Create or delete a container of blobs, or open it: its blobs may hold keys of identities.", throttleNone},
	{"audit.read", auth.AuditRead, "Read or verify the audit chain.", throttleNone},
	{"status.read", auth.StatusRead, "Read the status page's data.", throttleNone},
	{"backup.read", auth.StatusRead, "List backups and see how they stand.", throttleNone},
	{"backup.create", auth.HubManage, "Make a backup. With the master key in it: every permission.", throttleNone},
	{"fault.read", auth.StatusRead, "List injected faults.", throttleNone},
	{"fault.write", auth.HubManage, "Inject a fault into a device's connection, or end it.", throttleNone},
	{"doctor", auth.HubManage, "Look at the hub's own health.", throttleNone},
	{"authenticate", 0, "Show who one is; only refusals are audited.", throttleNone},
}

// Operations returns the table of operations.
func Operations() []OperationInfo { return operationTable[:] }

func (o operation) info() OperationInfo { return operationTable[o] }

// throttles are the hub-wide limiters of a limits profile. A nil limiter lets
// everything pass.
type throttles [throttleEnd]*rate.Limiter

// throttleBurst is how many seconds' worth of operations may come at once,
// and throttleQueue how long an operation is held back before it is refused:
// IoT Hub also slows callers down first.
const (
	throttleBurst = 5
	throttleQueue = 2 * time.Second
)

func newThrottles(l Limits) throttles {
	var t throttles
	for k, perSecond := range map[throttle]float64{
		throttleRegistry: l.RegistryRate, throttleTwinRead: l.TwinReadRate, throttleTwinUpdate: l.TwinUpdateRate,
		throttleQuery: l.QueryRate, throttleMethod: l.MethodRate, throttleConnect: l.ConnectRate, throttleUpload: l.UploadRate,
		throttleJob: l.JobRate, throttleConfiguration: l.ConfigurationRate,
	} {
		if perSecond > 0 {
			t[k] = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*throttleBurst)))
		}
	}
	return t
}

func (t *throttles) wait(ctx context.Context, k throttle, name string) error {
	if t[k] == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, throttleQueue)
	defer cancel()
	if err := t[k].Wait(bounded); err != nil {
		if ctx.Err() != nil {
			return wrapf(CodeCanceled, err, "the caller went away while it was throttled")
		}
		return errf(CodeThrottled, "this hub's rate for %s is %.0f a second and has been reached. Wait 10 seconds and try again. Operation type: %s", name, float64(t[k].Limit()), name)
	}
	return nil
}

// authorize checks that the caller may do op on target, and throttles it. A
// refusal is audited.
func (h *Hub) authorize(ctx context.Context, c Caller, op operation, target string) error {
	info := op.info()
	if !c.Permissions.Has(info.Permission) {
		e := errf(CodeForbidden, "%s needs the permission %s, which %s does not have", info.Name, info.Permission, c.Principal)
		h.auditRefused(c, op, target, e)
		return e
	}
	return h.throttles.wait(ctx, info.throttle, info.Name)
}

// auditRecord is what an audit entry holds beyond what its log adds.
type auditRecord struct {
	Principal string          `json:"p"`
	Cause     string          `json:"c,omitempty"`
	Operation string          `json:"o"`
	Target    string          `json:"t"`
	Outcome   string          `json:"r"`
	Code      string          `json:"e,omitempty"`
	RequestID string          `json:"i,omitempty"`
	Address   string          `json:"a,omitempty"`
	Details   json.RawMessage `json:"d,omitempty"`
}

// newAuditRecord bounds what a caller whom nobody knows may have written.
func newAuditRecord(c Caller, op operation, target, outcome string) auditRecord {
	return auditRecord{
		Principal: clip(c.Principal.String()), Cause: clip(c.Cause), Operation: op.info().Name, Target: clip(target),
		Outcome: outcome, RequestID: clip(c.RequestID), Address: clip(c.Address),
	}
}

// clip cuts a text of an audit entry; ids and names that the hub takes fit.
func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// auditTx records a change in the transaction that makes it.
func (h *Hub) auditTx(tx *storage.Tx, c Caller, op operation, target string, details json.RawMessage) error {
	r := newAuditRecord(c, op, target, outcomeDone)
	r.Details = details
	return appendAudit(tx, r)
}

const (
	outcomeDone    = "done"
	outcomeRefused = "refused"
	outcomeFailed  = "failed"
)

func appendAudit(tx *storage.Tx, r auditRecord) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return auditLog.Append(tx, b)
}

// auditLater records what changed nothing: it joins the next group and is not
// waited for; what the store can't take is counted as lost.
func (h *Hub) auditLater(r auditRecord) {
	if err := h.db.Submit(func(tx *storage.Tx) error { return appendAudit(tx, r) }); err != nil {
		h.count.auditLost.Add(1)
	}
}

// The audit is kept for good, and anybody who reaches a port can be refused:
// beyond a burst, refusals are counted only.
const (
	refusalsPerSecond = 1
	refusalsBurst     = 1000
)

func (h *Hub) auditRefused(c Caller, op operation, target string, e *Error) {
	if !h.audits.refusals.Allow() {
		h.count.auditLost.Add(1)
		return
	}
	r := newAuditRecord(c, op, target, outcomeRefused)
	r.Code = e.Code.String()
	h.auditLater(r)
}

// auditForbidden records a refusal that came after the permission of the
// operation itself was checked. It returns err.
func (h *Hub) auditForbidden(c Caller, op operation, target string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Code == CodeForbidden {
		h.auditRefused(c, op, target, e)
	}
	return err
}
