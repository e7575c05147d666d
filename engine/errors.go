package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Code says what went wrong, in IoT Hub's words where IoT Hub has one. The
// list is closed: each edge maps every code to its own wire once, and a test
// of that edge fails when a row is missing.
type Code uint8

// The codes. CodeInternal is the zero value, so that an error that nobody
// classified is never taken for a client's mistake.
const (
	CodeInternal Code = iota
	CodeArgumentInvalid
	CodeArgumentNull
	CodeFormat
	CodeUnauthorized
	CodeForbidden
	CodeDeviceNotFound
	CodeModuleNotFound
	CodePolicyNotFound
	CodeWebhookNotFound
	CodeQueryNotFound
	CodeSchemaNotFound
	CodeHistoryNotFound
	CodeMethodCallNotFound
	CodeDeviceAlreadyExists
	CodeModuleAlreadyExists
	CodeSystemModule
	CodeDeviceDefinedMultipleTimes
	CodeInvalidDeviceScope
	CodePreconditionFailed
	CodeDeviceDisabled
	CodeDeviceNotOnline
	CodeFaultInjected
	CodeConnectionClosed
	CodeGatewayTimeout
	CodeInvalidMethodResponse
	CodeTooLarge
	CodeTooManyDevices
	CodeTooManyModules
	CodeTooManyMethods
	CodeQueueFull
	CodeMessageLockLost
	CodeBackupRunning
	CodeFileNotFound
	CodeUploadNotFound
	CodeUploadExpired
	CodeUploadIncomplete
	CodeTooManyUploads
	CodeTooManyBlocks
	CodeBlockUnknown
	CodeChecksum
	CodeQuotaExceeded
	CodeQueryBudget
	CodeJobNotFound
	CodeJobAlreadyExists
	CodeJobState
	CodeJobPreviewChanged
	CodeJobTemplateNotFound
	CodeTooManyJobs
	CodeJobQuotaExceeded
	CodePatternNotFound
	CodePatternAlreadyExists
	CodePatternState
	CodePatternInvalid
	CodePatternUnsigned
	CodePatternGrant
	CodeRunNotFound
	CodeRunState
	CodeTooManyRuns
	CodeSecretNotFound
	CodeBlobContainer
	CodeBlobContainerNotFound
	CodeBlobContainerExists
	CodeBlobNotFound
	CodeConfigurationNotFound
	CodeConfigurationAlreadyExists
	CodeConfigurationCondition
	CodeConfigurationContent
	CodeConfigurationMetrics
	CodeTooManyConfigurations
	CodeThrottled
	CodeUnavailable
	CodeReadOnly
	CodeUncertain
	CodeClosed
	CodeCanceled
	codeEnd // keep last
)

// CodeInfo is one row of the table of codes, from which the documentation of
// errors is made.
type CodeInfo struct {
	Code      Code
	Name      string // stable, PascalCase, IoT Hub's name where it has one
	Text      string // what it means, one sentence
	Next      string // what the caller can do, one sentence
	Retryable bool   // the same call may succeed later without a change
}

// codeTable has exactly one row for each code, in order; a test checks it.
var codeTable = [...]CodeInfo{
	{CodeInternal, "ServerError", "The hub failed in a way that it did not expect.", "Try again; if it repeats, send the request id and the hub's log to whoever runs it.", true},
	{CodeArgumentInvalid, "ArgumentInvalid", "A field of the request has a value that is not allowed.", "Correct what the message names.", false},
	{CodeArgumentNull, "ArgumentNull", "A field that is required is missing.", "Add the field that the message names.", false},
	{CodeFormat, "IotHubFormatError", "The body is not the JSON that this operation takes.", "Send one JSON value of the documented shape.", false},
	{CodeUnauthorized, "IotHubUnauthorizedAccess", "The caller is not known, or its token is not valid.", "Check the policy name, the key, the token's expiry and the host name in its scope.", false},
	{CodeForbidden, "OperationNotAllowed", "The caller is known, but may not do this here.", "Use a principal with the permission that the message names.", false},
	{CodeDeviceNotFound, "DeviceNotFound", "There is no such device identity.", "Check the device id; `muster device list` shows what exists.", false},
	{CodeModuleNotFound, "ModuleNotFound", "There is no such module identity.", "Check the module id; `muster module list DEVICE` shows what exists.", false},
	{CodePolicyNotFound, "PolicyNotFound", "There is no such shared access policy.", "`muster policy list` shows what exists.", false},
	{CodeWebhookNotFound, "WebhookNotFound", "There is no such webhook.", "`muster webhook list` shows what exists.", false},
	{CodeQueryNotFound, "QueryNotFound", "There is no such saved query.", "`muster query list` shows what exists.", false},
	{CodeSchemaNotFound, "SchemaNotFound", "No schema is declared for twins.", "`muster schema declare FILE` declares one.", false},
	{CodeHistoryNotFound, "HistoryNotFound", "The twin's history does not reach that far, or has no such entry.", "`muster twin history DEVICE` shows what is kept.", false},
	{CodeMethodCallNotFound, "MethodCallNotFound", "There is no such queued method call, or it ended too long ago.", "`muster method list DEVICE` shows what is kept.", false},
	{CodeDeviceAlreadyExists, "DeviceAlreadyExists", "A device identity with this id exists.", "Choose another id, or update the one that exists with If-Match.", false},
	{CodeModuleAlreadyExists, "ModuleAlreadyExistsOnDevice", "A module identity with this id exists on the device.", "Choose another id, or update the one that exists with If-Match.", false},
	{CodeSystemModule, "SystemModuleModifyUnauthorizedAccess", "A system module of an edge device stays as long as its device is one.", "Delete the device, or set its capability iotEdge to false: its system modules go with it.", false},
	{CodeDeviceDefinedMultipleTimes, "DeviceDefinedMultipleTimes", "The same identity appears more than once in one bulk request.", "Send each identity once.", false},
	{CodeInvalidDeviceScope, "InvalidDeviceScope", "The device scope does not name a parent that the device can have.", "Use the deviceScope of an existing edge device that is not the device itself or below it.", false},
	{CodePreconditionFailed, "PreconditionFailed", "The record has changed since the caller read it, or If-Match is missing.", "Read it again and send its current ETag, or * to overwrite.", false},
	{CodeDeviceDisabled, "DeviceDisabled", "The device identity is disabled.", "Enable it, after looking at its statusReason.", false},
	{CodeDeviceNotOnline, "DeviceNotOnline", "The device is not connected, or has not subscribed to methods.", "Wait for the device, or allow for that with connectTimeoutInSeconds.", true},
	{CodeFaultInjected, "FaultInjected", "The connection was ended on purpose, by an injected fault.", "Connect again; `muster fault list` shows what is injected.", true},
	{CodeConnectionClosed, "DeviceConnectionClosedRemotely", "The device's connection ended before it answered; whether it acted is not known.", "Look at the device's reported properties before you repeat the call.", true},
	{CodeGatewayTimeout, "GatewayTimeout", "The device took the request and did not answer in time; whether it acted is not known.", "Look at the device's reported properties before you repeat the call.", true},
	{CodeInvalidMethodResponse, "DeviceInvalidResultCount", "The device's answer is not valid JSON.", "Mend the method handler on the device: it must answer with JSON or nothing.", false},
	{CodeTooLarge, "MessageTooLarge", "The body is larger than the limit.", "Send less; the limits are listed in the documentation.", false},
	{CodeTooManyDevices, "TooManyDevices", "The request or the hub holds too many devices.", "Send at most 100 in one request.", false},
	{CodeTooManyModules, "TooManyModulesOnDevice", "The device has as many modules as it may have.", "Delete one first.", false},
	{CodeTooManyMethods, "DeviceMaximumInflightMethodExceeded", "Too many method calls wait for this device.", "Wait until some of them have ended.", true},
	{CodeQueueFull, "DeviceMaximumQueueDepthExceeded", "As many cloud-to-device messages wait for the device as may.", "Wait until the device has received some, or purge its queue.", true},
	{CodeMessageLockLost, "DeviceMessageLockLost", "The lock token is not known, or its lock has ended.", "Receive the message again, and settle it before its lock ends.", false},
	{CodeBackupRunning, "BackupRunning", "A backup is being made; there is one at a time.", "Wait until it has ended; `muster backup list` shows how far it is.", true},
	{CodeFileNotFound, "FileNotFound", "The device has no file of this name.", "`muster file list DEVICE` shows what is kept.", false},
	{CodeUploadNotFound, "InvalidFileUploadCorrelationId", "The device has no upload with this correlation id under way.", "Begin the upload again.", false},
	{CodeUploadExpired, "ExpiredFileUploadCorrelationId", "The upload took longer than it may.", "Begin it again, and notify the hub within upload_time.", false},
	{CodeUploadIncomplete, "InvalidStorageEndpointOrBlob", "The upload was reported as done, and nothing was sent.", "Send the content to the address that the hub gave, then notify it.", false},
	{CodeTooManyUploads, "DeviceMaximumActiveFileUploadLimitExceeded", "As many uploads of the device are under way as may.", "Notify the hub of those that have ended; those without a word end by themselves after upload_time.", true},
	{CodeTooManyBlocks, "BlockCountExceedsLimit", "The upload has more blocks than it may.", "Send larger blocks.", false},
	{CodeBlockUnknown, "InvalidBlockList", "A block of the list was not sent.", "Send the block, then the list again.", false},
	{CodeChecksum, "Md5Mismatch", "The content is not what its checksum says.", "Send it again.", true},
	{CodeQuotaExceeded, "IotHubQuotaExceeded", "A quota of the hub is used up.", "Free what the message names, or wait until it expires.", true},
	{CodeQueryBudget, "QueryBudgetExceeded", "The query costs more than one query may.", "Narrow it: WHERE with a comparison on a property, fewer rows, no function over every row.", false},
	{CodeJobNotFound, "JobNotFound", "There is no such job, or it ended too long ago.", "`muster job list` shows what is kept.", false},
	{CodeJobAlreadyExists, "JobAlreadyExists", "A job with this id exists.", "Choose another id, or leave it out and the hub makes one.", false},
	{CodeJobState, "OperationNotAllowedInCurrentState", "The job is in a state in which this can't be done.", "`muster job show JOB` says how it stands.", false},
	{CodeJobPreviewChanged, "JobRunPreconditionFailed", "The job's targets are no longer those of the preview.", "Preview it again, look at what changed, and start it with the new token.", false},
	{CodeJobTemplateNotFound, "JobTemplateNotFound", "There is no such job template.", "`muster job template list` shows what exists.", false},
	{CodeTooManyJobs, "ThrottlingMaxActiveJobCountExceeded", "As many jobs are active as may be.", "Wait until one has ended, or cancel one.", true},
	{CodeJobQuotaExceeded, "JobQuotaExceeded", "An import or export is under way; there is one at a time.", "Wait until it has ended, or cancel it.", true},
	{CodePatternNotFound, "PatternNotFound", "There is no such pattern, or not this version of it.", "`muster pattern list` shows what is installed.", false},
	{CodePatternAlreadyExists, "PatternAlreadyExists", "This version of the pattern is installed already, with other files.", "Raise version in the manifest, or remove the installed one.", false},
	{CodePatternState, "PatternState", "The pattern is in a state in which this can't be done.", "`muster pattern show NAME` says how it stands.", false},
	{CodePatternInvalid, "PatternInvalid", "The pattern's manifest or code is not valid.", "Correct what the message names; `muster pattern check DIR` looks at it without a hub.", false},
	{CodePatternUnsigned, "PatternUnsigned", "The pattern is not signed by a key that this hub trusts.", "Sign it with a trusted key, or install it with --unsigned if you know where it comes from.", false},
	{CodePatternGrant, "PatternGrant", "The pattern asks for capabilities that were not granted.", "Look at what it asks for, and install it with all of it granted.", false},
	{CodeRunNotFound, "RunNotFound", "There is no such run, or it ended too long ago.", "`muster run list` shows what is kept.", false},
	{CodeRunState, "RunState", "The run is in a state in which this can't be done.", "`muster run show RUN` says how it stands.", false},
	{CodeTooManyRuns, "TooManyRuns", "As many runs are under way as may be.", "Wait until some have ended, or cancel some.", true},
	{CodeSecretNotFound, "SecretNotFound", "There is no such secret.", "`muster pattern secret list` shows what exists.", false},
	{CodeBlobContainer, "BlobContainerValidationError", "The blob container can't be used.", "Use a container of this hub: `muster device import` and `muster device export` make one.", false},
	{CodeBlobContainerNotFound, "ContainerNotFound", "There is no such container.", "`muster container list` shows what exists.", false},
	{CodeBlobContainerExists, "ContainerAlreadyExists", "A container with this name exists.", "Choose another name, or leave it out and the hub makes one.", false},
	{CodeBlobNotFound, "BlobNotFound", "The container has no such blob.", "`muster container blobs CONTAINER` shows what it has.", false},
	{CodeConfigurationNotFound, "ConfigurationNotFound", "There is no such configuration.", "`muster configuration list` shows what exists.", false},
	{CodeConfigurationAlreadyExists, "ConfigurationAlreadyExists", "A configuration with this id exists.", "Choose another id, or update the one that exists with If-Match.", false},
	{CodeConfigurationCondition, "InvalidConfigurationTargetCondition", "The configuration's target condition can't be used.", "Correct it at the place that the message names; `muster query` tries conditions.", false},
	{CodeConfigurationContent, "InvalidConfigurationContent", "The configuration's content is not one that can be applied.", "Give desired properties under keys such as properties.desired.path.", false},
	{CodeConfigurationMetrics, "InvalidConfigurationCustomMetricsQuery", "A query of the configuration's metrics can't be used.", "Correct the query that the message names.", false},
	{CodeTooManyConfigurations, "ConfigurationCountLimitExceeded", "The hub has as many configurations as it may have.", "Delete one first.", false},
	{CodeThrottled, "ThrottlingException", "The caller asks more often than it may.", "Wait some seconds and try again.", true},
	{CodeUnavailable, "ServiceUnavailable", "The hub is not ready.", "Wait; /readyz says for what.", true},
	{CodeReadOnly, "StoreReadOnly", "The store takes no writes now: the disk is nearly full or has failed.", "Run `muster doctor`; free disk space, or restart after a disk failure.", true},
	{CodeUncertain, "OutcomeUncertain", "The disk failed during this change: it may or may not have been stored.", "Restart the hub, then read the record before you repeat the change.", false},
	{CodeClosed, "ServerShuttingDown", "The hub is shutting down.", "Connect again in a few seconds.", true},
	{CodeCanceled, "ClientClosedRequest", "The caller went away before the answer.", "Nothing to do.", true},
}

// Codes returns the table of all codes in order.
func Codes() []CodeInfo { return codeTable[:] }

// String returns the code's stable name.
func (c Code) String() string { return c.Info().Name }

// Info returns the code's row; an unknown code gets CodeInternal's.
func (c Code) Info() CodeInfo {
	if c >= codeEnd {
		c = CodeInternal
	}
	return codeTable[c]
}

// Error is the one error type that leaves the engine. Message says what was
// wrong and what was expected, and never holds a secret. The cause is for the
// log only: edges must not show it.
type Error struct {
	Code    Code
	Message string
	Next    string // what to do, when it is more exact than the code's own text
	cause   error
}

// Error returns the code and the message.
func (e *Error) Error() string { return e.Code.String() + ": " + e.Message }

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// LogValue returns what Error does and the cause, which nobody but the log gets.
func (e *Error) LogValue() slog.Value {
	text := e.Error()
	if e.cause != nil {
		if cause := e.cause.Error(); !strings.Contains(text, cause) {
			text += ": " + cause
		}
	}
	return slog.StringValue(text)
}

// NextStep returns what the caller can do about it.
func (e *Error) NextStep() string {
	if e.Next != "" {
		return e.Next
	}
	return e.Code.Info().Next
}

// AsError returns err as an *Error: itself, or wrapped as CodeInternal.
// AsError(nil) is nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInternal, Message: "internal error", cause: err}
}

func errf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

func wrapf(c Code, cause error, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...), cause: cause}
}
