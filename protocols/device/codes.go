package device

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// wireCode is how one engine.Code looks to a device.
type wireCode struct {
	connack byte // answer to CONNECT
	status  int  // in $iothub/twin/res/{status}
	number  int  // errorCode in the body, and in the log of a disconnect
}

// wireCodes has a row for every engine.Code; a test keeps it complete.
//
// A CONNACK of 5 makes some SDKs give up until their application restarts, so
// only what the device itself must mend gets it; whatever may pass gets 3
// (docs/reference/protocol-mqtt.md, Errors).
func wireCodes() map[engine.Code]wireCode {
	return map[engine.Code]wireCode{
		engine.CodeInternal:                   {wire.ConnackUnavailable, 500, 500001},
		engine.CodeArgumentInvalid:            {wire.ConnackBadCredentials, 400, 400004},
		engine.CodeArgumentNull:               {wire.ConnackBadCredentials, 400, 400005},
		engine.CodeFormat:                     {wire.ConnackBadCredentials, 400, 400006},
		engine.CodeUnauthorized:               {wire.ConnackNotAuthorized, 401, 401003},
		engine.CodeForbidden:                  {wire.ConnackNotAuthorized, 403, 401002},
		engine.CodeDeviceNotFound:             {wire.ConnackNotAuthorized, 404, 404001},
		engine.CodeModuleNotFound:             {wire.ConnackNotAuthorized, 404, 404010},
		engine.CodeWebhookNotFound:            {wire.ConnackNotAuthorized, 404, 404001},
		engine.CodePolicyNotFound:             {wire.ConnackNotAuthorized, 404, 404001},
		engine.CodeMethodCallNotFound:         {wire.ConnackUnavailable, 404, 404001},
		engine.CodeHistoryNotFound:            {wire.ConnackUnavailable, 404, 404001},
		engine.CodeQueryNotFound:              {wire.ConnackUnavailable, 404, 404001},
		engine.CodeSchemaNotFound:             {wire.ConnackUnavailable, 404, 404001},
		engine.CodeDeviceAlreadyExists:        {wire.ConnackUnavailable, 409, 409001},
		engine.CodeModuleAlreadyExists:        {wire.ConnackUnavailable, 409, 409301},
		engine.CodeSystemModule:               {wire.ConnackUnavailable, 409, 401100},
		engine.CodeDeviceDefinedMultipleTimes: {wire.ConnackUnavailable, 400, 400011},
		engine.CodeInvalidDeviceScope:         {wire.ConnackUnavailable, 400, 400028},
		engine.CodePreconditionFailed:         {wire.ConnackUnavailable, 412, 412001},
		engine.CodeDeviceDisabled:             {wire.ConnackNotAuthorized, 403, 403012},
		engine.CodeDeviceNotOnline:            {wire.ConnackUnavailable, 404, 404103},
		engine.CodeFaultInjected:              {wire.ConnackUnavailable, 503, 503001},
		engine.CodeConnectionClosed:           {wire.ConnackUnavailable, 404, 404104},
		engine.CodeGatewayTimeout:             {wire.ConnackUnavailable, 504, 504101},
		engine.CodeInvalidMethodResponse:      {wire.ConnackUnavailable, 502, 500001},
		engine.CodeTooLarge:                   {wire.ConnackBadCredentials, 413, 413001},
		engine.CodeTooManyDevices:             {wire.ConnackUnavailable, 413, 413002},
		engine.CodeTooManyModules:             {wire.ConnackUnavailable, 413, 413003},
		engine.CodeTooManyMethods:             {wire.ConnackUnavailable, 429, 403800},
		engine.CodeQueueFull:                  {wire.ConnackUnavailable, 403, 403004},
		engine.CodeMessageLockLost:            {wire.ConnackUnavailable, 412, 412002},
		engine.CodeBackupRunning:              {wire.ConnackUnavailable, 409, 409000},
		engine.CodeFileNotFound:               {wire.ConnackUnavailable, 404, 404001},
		engine.CodeUploadNotFound:             {wire.ConnackUnavailable, 400, 400015},
		engine.CodeUploadExpired:              {wire.ConnackUnavailable, 400, 400016},
		engine.CodeUploadIncomplete:           {wire.ConnackUnavailable, 400, 400020},
		engine.CodeTooManyUploads:             {wire.ConnackUnavailable, 403, 403006},
		engine.CodeTooManyBlocks:              {wire.ConnackUnavailable, 400, 400020},
		engine.CodeBlockUnknown:               {wire.ConnackUnavailable, 400, 400020},
		engine.CodeChecksum:                   {wire.ConnackUnavailable, 400, 400020},
		engine.CodeQuotaExceeded:              {wire.ConnackUnavailable, 403, 403002},
		engine.CodeQueryBudget:                {wire.ConnackUnavailable, 400, 400004},
		engine.CodeJobNotFound:                {wire.ConnackUnavailable, 404, 404002},
		engine.CodeJobAlreadyExists:           {wire.ConnackUnavailable, 409, 409104},
		engine.CodeJobState:                   {wire.ConnackUnavailable, 405, 405102},
		engine.CodeJobPreviewChanged:          {wire.ConnackUnavailable, 412, 412003},
		engine.CodeJobTemplateNotFound:        {wire.ConnackUnavailable, 404, 404001},
		engine.CodeTooManyJobs:                {wire.ConnackUnavailable, 429, 429004},
		engine.CodeJobQuotaExceeded:           {wire.ConnackUnavailable, 403, 403003},
		engine.CodePatternNotFound:            {wire.ConnackUnavailable, 404, 404001},
		engine.CodePatternAlreadyExists:       {wire.ConnackUnavailable, 409, 409000},
		engine.CodePatternState:               {wire.ConnackUnavailable, 409, 409000},
		engine.CodePatternInvalid:             {wire.ConnackUnavailable, 400, 400004},
		engine.CodePatternUnsigned:            {wire.ConnackUnavailable, 403, 403002},
		engine.CodePatternGrant:               {wire.ConnackUnavailable, 409, 409000},
		engine.CodeRunNotFound:                {wire.ConnackUnavailable, 404, 404001},
		engine.CodeRunState:                   {wire.ConnackUnavailable, 409, 409000},
		engine.CodeTooManyRuns:                {wire.ConnackUnavailable, 429, 429001},
		engine.CodeSecretNotFound:             {wire.ConnackUnavailable, 404, 404001},
		engine.CodeBlobContainer:              {wire.ConnackUnavailable, 400, 400008},
		engine.CodeBlobNotFound:               {wire.ConnackUnavailable, 404, 404001},
		engine.CodeConfigurationNotFound:      {wire.ConnackUnavailable, 404, 404301},
		engine.CodeConfigurationAlreadyExists: {wire.ConnackUnavailable, 409, 409401},
		engine.CodeConfigurationCondition:     {wire.ConnackUnavailable, 400, 400401},
		engine.CodeConfigurationContent:       {wire.ConnackUnavailable, 400, 400402},
		engine.CodeConfigurationMetrics:       {wire.ConnackUnavailable, 400, 400404},
		engine.CodeTooManyConfigurations:      {wire.ConnackUnavailable, 413, 413101},
		engine.CodeBlobContainerNotFound:      {wire.ConnackUnavailable, 404, 404001},
		engine.CodeBlobContainerExists:        {wire.ConnackUnavailable, 409, 409000},
		engine.CodeThrottled:                  {wire.ConnackUnavailable, 429, 429001},
		engine.CodeUnavailable:                {wire.ConnackUnavailable, 503, 503001},
		engine.CodeReadOnly:                   {wire.ConnackUnavailable, 503, 503001},
		engine.CodeUncertain:                  {wire.ConnackUnavailable, 500, 500001},
		engine.CodeClosed:                     {wire.ConnackUnavailable, 503, 503001},
		engine.CodeCanceled:                   {wire.ConnackUnavailable, 499, 499000},
	}
}

// code returns the row of an error; one without a row counts as internal.
func (h *Handler) code(e *engine.Error) wireCode {
	if c, ok := h.codes[e.Code]; ok {
		return c
	}
	return h.codes[engine.CodeInternal]
}

// errorBody is the JSON of a refused twin request in IoT Hub's MQTT contract.
// The Node SDK sees an error only through a truthy errorCode in it.
type errorBody struct {
	ErrorCode    int    `json:"errorCode"`
	TrackingID   string `json:"trackingId"`
	Message      string `json:"message"`
	TimestampUTC string `json:"timestampUtc"`
}

// timestampLayout has seven digits of fraction, as IoT Hub writes times.
const timestampLayout = "2006-01-02T15:04:05.0000000Z"

func newErrorBody(number int, message string, now time.Time) (body []byte, trackingID string) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	trackingID = hex.EncodeToString(id[:])
	body, _ = json.Marshal(errorBody{ // strings and an int always marshal
		ErrorCode:    number,
		TrackingID:   trackingID,
		Message:      message,
		TimestampUTC: now.UTC().Format(timestampLayout),
	})
	return body, trackingID
}
