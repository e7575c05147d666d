package service

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/query"
	"github.com/muster-hub/muster/engine/rollout"
)

// shape is the form of a route's error answers.
type shape uint8

const (
	// shapeMessage is IoT Hub's usual form: Message "ErrorCode:NAME;text".
	shapeMessage shape = iota
	// shapeNested is what IoT Hub's direct methods answer: Message holds a
	// JSON text with the numeric code, and ExceptionMessage is empty, which
	// the Java client insists on.
	shapeNested
	// shapeProblem is RFC 9457's problem+json, on Muster's own paths.
	shapeProblem
)

// ownPrefix begins Muster's own paths.
const ownPrefix = "/api/"

func shapeOf(path string) shape {
	if len(path) >= len(ownPrefix) && strings.EqualFold(path[:len(ownPrefix)], ownPrefix) {
		return shapeProblem
	}
	return shapeMessage
}

// wireRow is how one engine code looks on both APIs.
type wireRow struct {
	code   engine.Code
	status int    // HTTP status on IoT Hub's paths
	number int    // IoT Hub's six digits; they begin with the status, as C# demands
	name   string // IoT Hub's name, in the body and in iothub-errorcode
	own    int    // HTTP status on Muster's own paths; 0: status
}

// wireTable maps every engine code once; a test checks that none is missing.
// Without the permission it is 401 on IoT Hub's paths, as IoT Hub answers:
// clients read its 403 as a quota. On Muster's own paths it is 403.
var wireTable = [...]wireRow{
	{code: engine.CodeInternal, status: 500, number: 500001, name: "ServerError"},
	{code: engine.CodeArgumentInvalid, status: 400, number: 400004, name: "ArgumentInvalid"},
	{code: engine.CodeArgumentNull, status: 400, number: 400005, name: "ArgumentNull"},
	{code: engine.CodeFormat, status: 400, number: 400006, name: "IotHubFormatError"},
	{code: engine.CodeUnauthorized, status: 401, number: 401002, name: "IotHubUnauthorizedAccess"},
	{code: engine.CodeForbidden, status: 401, number: 401002, name: "IotHubUnauthorizedAccess", own: 403},
	{code: engine.CodeDeviceNotFound, status: 404, number: 404001, name: "DeviceNotFound"},
	{code: engine.CodeModuleNotFound, status: 404, number: 404010, name: "ModuleNotFound"},
	{code: engine.CodeWebhookNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeQueryNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeSchemaNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodePolicyNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeMethodCallNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeHistoryNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeDeviceAlreadyExists, status: 409, number: 409001, name: "DeviceAlreadyExists"},
	{code: engine.CodeModuleAlreadyExists, status: 409, number: 409301, name: "ModuleAlreadyExistsOnDevice"},
	{code: engine.CodeSystemModule, status: 401, number: 401100, name: "SystemModuleModifyUnauthorizedAccess", own: 409},
	{code: engine.CodeDeviceDefinedMultipleTimes, status: 400, number: 400011, name: "DeviceDefinedMultipleTimes"},
	{code: engine.CodeInvalidDeviceScope, status: 400, number: 400028, name: "InvalidDeviceScope"},
	{code: engine.CodePreconditionFailed, status: 412, number: 412001, name: "PreconditionFailed"},
	{code: engine.CodeDeviceDisabled, status: 403, number: 403012, name: "DeviceDisabled"},
	{code: engine.CodeDeviceNotOnline, status: 404, number: 404103, name: "DeviceNotOnline"},
	{code: engine.CodeFaultInjected, status: 503, number: 503001, name: "ServiceUnavailable"},
	{code: engine.CodeConnectionClosed, status: 404, number: 404104, name: "DeviceConnectionClosedRemotely"},
	{code: engine.CodeGatewayTimeout, status: 504, number: 504101, name: "GatewayTimeout"},
	// Not a 5xx: Python repeats those, and the device has acted already.
	{code: engine.CodeInvalidMethodResponse, status: 400, number: 400002, name: "DeviceInvalidResultCount"},
	{code: engine.CodeTooLarge, status: 413, number: 413001, name: "MessageTooLarge"},
	{code: engine.CodeTooManyDevices, status: 413, number: 413002, name: "TooManyDevices"},
	{code: engine.CodeTooManyModules, status: 413, number: 413003, name: "TooManyModulesOnDevice"},
	{code: engine.CodeTooManyMethods, status: 403, number: 403800, name: "DeviceMaximumInflightMethodExceeded", own: 429},
	{code: engine.CodeQueueFull, status: 403, number: 403004, name: "DeviceMaximumQueueDepthExceeded", own: 429},
	{code: engine.CodeMessageLockLost, status: 412, number: 412002, name: "DeviceMessageLockLost"},
	{code: engine.CodeBackupRunning, status: 409, number: 409000, name: "GenericConflict"},
	{code: engine.CodeFileNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeUploadNotFound, status: 400, number: 400015, name: "InvalidFileUploadCorrelationId"},
	{code: engine.CodeUploadExpired, status: 400, number: 400016, name: "ExpiredFileUploadCorrelationId"},
	{code: engine.CodeUploadIncomplete, status: 400, number: 400020, name: "InvalidStorageEndpointOrBlob"},
	{code: engine.CodeTooManyUploads, status: 403, number: 403006, name: "DeviceMaximumActiveFileUploadLimitExceeded"},
	{code: engine.CodeTooManyBlocks, status: 400, number: 400020, name: "InvalidStorageEndpointOrBlob"},
	{code: engine.CodeBlockUnknown, status: 400, number: 400020, name: "InvalidStorageEndpointOrBlob"},
	{code: engine.CodeChecksum, status: 400, number: 400020, name: "InvalidStorageEndpointOrBlob"},
	{code: engine.CodeQuotaExceeded, status: 403, number: 403002, name: "IotHubQuotaExceeded"},
	{code: engine.CodeQueryBudget, status: 400, number: 400004, name: "ArgumentInvalid"},
	{code: engine.CodeJobNotFound, status: 404, number: 404002, name: "JobNotFound"},
	{code: engine.CodeJobAlreadyExists, status: 409, number: 409104, name: "JobAlreadyExists"},
	{code: engine.CodeJobState, status: 405, number: 405102, name: "OperationNotAllowedInCurrentState", own: 409},
	{code: engine.CodeJobPreviewChanged, status: 412, number: 412003, name: "JobRunPreconditionFailed"},
	{code: engine.CodeJobTemplateNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeTooManyJobs, status: 429, number: 429004, name: "ThrottlingMaxActiveJobCountExceeded"},
	{code: engine.CodeJobQuotaExceeded, status: 403, number: 403003, name: "JobQuotaExceeded", own: 429},
	{code: engine.CodePatternNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodePatternAlreadyExists, status: 409, number: 409000, name: "GenericConflict"},
	{code: engine.CodePatternState, status: 409, number: 409000, name: "GenericConflict"},
	{code: engine.CodePatternInvalid, status: 400, number: 400004, name: "ArgumentInvalid"},
	{code: engine.CodePatternUnsigned, status: 401, number: 401002, name: "IotHubUnauthorizedAccess", own: 403},
	{code: engine.CodePatternGrant, status: 409, number: 409000, name: "GenericConflict"},
	{code: engine.CodeRunNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeRunState, status: 409, number: 409000, name: "GenericConflict"},
	{code: engine.CodeTooManyRuns, status: 429, number: 429001, name: "ThrottlingException"},
	{code: engine.CodeSecretNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeBlobContainer, status: 400, number: 400008, name: "BlobContainerValidationError"},
	{code: engine.CodeBlobContainerNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeBlobContainerExists, status: 409, number: 409000, name: "GenericConflict"},
	{code: engine.CodeBlobNotFound, status: 404, number: 404000, name: "GenericNotFound"},
	{code: engine.CodeConfigurationNotFound, status: 404, number: 404301, name: "ConfigurationNotFound"},
	{code: engine.CodeConfigurationAlreadyExists, status: 409, number: 409401, name: "ConfigurationAlreadyExists"},
	{code: engine.CodeConfigurationCondition, status: 400, number: 400401, name: "InvalidConfigurationTargetCondition"},
	{code: engine.CodeConfigurationContent, status: 400, number: 400402, name: "InvalidConfigurationContent"},
	{code: engine.CodeConfigurationMetrics, status: 400, number: 400404, name: "InvalidConfigurationCustomMetricsQuery"},
	{code: engine.CodeTooManyConfigurations, status: 413, number: 413101, name: "ConfigurationCountLimitExceeded"},
	{code: engine.CodeThrottled, status: 429, number: 429001, name: "ThrottlingException"},
	{code: engine.CodeUnavailable, status: 503, number: 503001, name: "ServiceUnavailable"},
	{code: engine.CodeReadOnly, status: 503, number: 503001, name: "ServiceUnavailable"},
	{code: engine.CodeUncertain, status: 500, number: 500001, name: "ServerError"},
	{code: engine.CodeClosed, status: 503, number: 503001, name: "ServiceUnavailable"},
	{code: engine.CodeCanceled, status: 499, number: 499000, name: "ClientClosedRequest"},
}

// wireOf returns the row of a code; an unknown code gets CodeInternal's.
func wireOf(code engine.Code) wireRow {
	for _, w := range wireTable {
		if w.code == code {
			return w
		}
	}
	return wireTable[0]
}

// failure is an error that has no engine code, because the request never
// became an operation: an unknown path, a wrong method, an encoded body.
type failure struct {
	status int
	number int
	name   string // IoT Hub's
	code   string // Muster's, in problem+json
	text   string
	next   string
	allow  string // header Allow
	query  *query.Error
	faults rollout.Faults
}

// Error returns the code and the text.
func (f *failure) Error() string { return f.code + ": " + f.text }

func invalid(format string, args ...any) error {
	return &engine.Error{Code: engine.CodeArgumentInvalid, Message: fmt.Sprintf(format, args...)}
}

func badFormat(format string, args ...any) error {
	return &engine.Error{Code: engine.CodeFormat, Message: fmt.Sprintf(format, args...)}
}

// failureOf translates any error for the shape. Causes never leave: they are
// for the log.
func failureOf(err error, s shape) *failure {
	if f, ok := err.(*failure); ok { //nolint:errorlint // made in this package, never wrapped
		return f
	}
	e := engine.AsError(err)
	w := wireOf(e.Code)
	f := &failure{status: w.status, number: w.number, name: w.name, code: e.Code.String(), text: e.Message, next: e.NextStep()}
	if s != shapeProblem {
		return f
	}
	if q, ok := errors.AsType[*query.Error](e); ok {
		f.query = q
	}
	if faults, ok := errors.AsType[rollout.Faults](e); ok {
		f.faults = faults
	}
	if w.own != 0 {
		f.status = w.own
	}
	if !strings.Contains(f.text, " ") { // IoT Hub's whole message for an unknown device is its id
		f.text = strings.TrimSuffix(e.Code.Info().Text, ".") + ": " + strconv.Quote(f.text)
	}
	return f
}

// problem is the body of an error on Muster's own paths.
type problem struct {
	Type      string `json:"type" doc:"Identifies the kind of error: urn:muster:error: and the code."`
	Title     string `json:"title" doc:"What the code means."`
	Status    int    `json:"status" doc:"The HTTP status."`
	Code      string `json:"code" doc:"Stable code of a closed list."`
	Detail    string `json:"detail" doc:"What was wrong in this request."`
	Next      string `json:"next" doc:"What the caller can do."`
	RequestID string `json:"requestId" doc:"The answer's x-ms-request-id."`

	Query  *queryFault `json:"query,omitempty" doc:"Of a query that can't be read: where and why."`
	Faults []jobFault  `json:"faults,omitempty" doc:"Of a job's or a configuration's policy: all that is wrong with it, at most twenty."`
}

// jobFault says what is wrong with one member of a document.
type jobFault struct {
	Path     string `json:"path" doc:"From the document's root, such as policy.windows[0].cron."`
	Reason   string `json:"reason" doc:"What was found."`
	Expected string `json:"expected,omitempty"`
}

func showJobFault(f rollout.Fault) jobFault { return jobFault{f.Path, f.Reason, f.Expected} }

// queryFault says what is wrong with the text of a query.
type queryFault struct {
	Offset   int    `json:"offset" doc:"In bytes, from 0."`
	Column   int    `json:"column" doc:"In characters, from 1."`
	Found    string `json:"found"`
	Expected string `json:"expected"`
	Caret    string `json:"caret" doc:"The text around the place, and below it a line with a caret."`
}

func showQueryFault(e *query.Error) *queryFault {
	if e == nil {
		return nil
	}
	return &queryFault{e.At, e.Column(), e.Found, e.Expected, e.Caret()}
}

// hubError is the body of an error on IoT Hub's paths.
type hubError struct {
	Message          string `json:"Message" doc:"ErrorCode:NAME;text, or on direct methods a JSON text with errorCode, trackingId, message, info and timestampUtc."`
	ExceptionMessage string `json:"ExceptionMessage" doc:"Tracking id and time; empty on direct methods."`
}

type nestedError struct {
	ErrorCode  int       `json:"errorCode"`
	TrackingID string    `json:"trackingId"`
	Message    string    `json:"message"`
	Info       errorInfo `json:"info"`
	Timestamp  string    `json:"timestampUtc"`
}

type errorInfo struct {
	Timeout string `json:"timeout,omitempty"`
}

// fail answers an error in the route's shape.
func (c *call) fail(err error) {
	f := failureOf(err, c.shape)
	if f.status >= http.StatusInternalServerError && f.number == 500001 {
		c.log.ErrorContext(c.r.Context(), "request failed", slog.Any("error", unwrapped(err)),
			slog.String("path", c.path), slog.String("request_id", c.requestID))
	}
	head := c.w.Header()
	switch f.status {
	case http.StatusUnauthorized:
		head.Set("WWW-Authenticate", "SharedAccessSignature")
	case http.StatusServiceUnavailable:
		head.Set("Retry-After", "5")
	case http.StatusTooManyRequests:
		if c.shape == shapeProblem { // IoT Hub sends none, and clients have their own pace
			head.Set("Retry-After", "10")
		}
	}
	if f.allow != "" {
		head.Set("Allow", f.allow)
	}
	if c.shape == shapeProblem {
		head.Set("Content-Type", "application/problem+json; charset=utf-8")
		c.write(f.status, problem{
			Type: "urn:muster:error:" + f.code, Title: titleOf(f), Status: f.status, Code: f.code,
			Detail: f.text, Next: f.next, RequestID: c.requestID, Query: showQueryFault(f.query), Faults: show(f.faults, showJobFault),
		})
		return
	}
	if f.status == http.StatusUnauthorized {
		c.shape = shapeMessage // IoT Hub refuses strangers before it looks at the operation
	}
	head["iothub-errorcode"] = []string{f.name}
	head.Set("Content-Type", jsonType)
	c.write(f.status, c.hubError(f))
}

// unwrapped gives the log the cause that the wire must not show.
func unwrapped(err error) error {
	if e, ok := err.(interface{ Unwrap() error }); ok { //nolint:errorlint // one level on purpose
		if cause := e.Unwrap(); cause != nil {
			return fmt.Errorf("%w: %w", err, cause)
		}
	}
	return err
}

// hubError renders f in one of IoT Hub's two forms.
func (c *call) hubError(f *failure) hubError {
	now := time.Now().UTC()
	tracking := trackingID(c.requestID)
	if c.shape != shapeNested {
		return hubError{
			Message:          "ErrorCode:" + f.name + ";" + f.text,
			ExceptionMessage: "Tracking ID:" + tracking + "-G:0-TimeStamp:" + now.Format("01/02/2006 15:04:05"),
		}
	}
	n := nestedError{ErrorCode: f.number, TrackingID: tracking, Message: f.text, Timestamp: now.Format(timeLayout)}
	if f.number == 404103 {
		n.Info.Timeout = "00:00:00"
	}
	return hubError{Message: string(encode(n))}
}

// titleOf returns the code's sentence, or the HTTP status in words.
func titleOf(f *failure) string {
	for _, info := range engine.Codes() {
		if info.Name == f.code {
			return info.Text
		}
	}
	return http.StatusText(f.status)
}

// trackingID is the request id in IoT Hub's form, 32 upper-case hex digits,
// when it is a UUID, so that both lead to the same line of the log.
func trackingID(requestID string) string {
	id := strings.ToUpper(strings.ReplaceAll(requestID, "-", ""))
	if _, err := hex.DecodeString(id); err == nil && len(id) == 32 {
		return id
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return strings.ToUpper(hex.EncodeToString(b[:]))
}

const jsonType = "application/json; charset=utf-8"

// encode returns v as compact JSON without HTML escapes. The types that this
// package encodes cannot fail.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// send writes a handler's answer.
func (c *call) send(a answer) error {
	if a.sent {
		return nil
	}
	status := a.status
	if status == 0 {
		status = http.StatusOK
	}
	head := c.w.Header()
	if a.body != nil {
		head.Set("Content-Type", jsonType) // a header of the answer's own may say otherwise
	}
	for name, value := range a.header {
		head[name] = []string{value} // as spelled: some clients compare the name's case
	}
	if a.etag != "" {
		head.Set("ETag", strconv.Quote(a.etag))
	}
	if a.body == nil {
		c.w.WriteHeader(status)
		return nil
	}
	c.write(status, a.body)
	return nil
}

func (c *call) write(status int, body any) {
	data, ok := body.(json.RawMessage)
	if !ok {
		data = encode(body)
	}
	c.w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(data) // a client that is gone is no failure of the operation
}
