package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is the hub's refusal of a request, whichever of its error bodies it
// used: problem+json on Muster's own paths, IoT Hub's on IoT Hub's.
type Error struct {
	Status    int    // HTTP status, or the status of a twin answer on the device wire
	Code      string // stable name, "DeviceNotFound"; empty when the hub gave none
	Message   string // what was wrong
	Next      string // what to do; only Muster's own paths say it
	RequestID string
	Query     *QueryFault // of a query that can't be read
	Faults    []JobFault  // of a job: all that is wrong with it

	RetryAfter time.Duration // how long the hub asks to wait; 0: it does not say
}

// QueryFault says where a query is wrong.
type QueryFault struct {
	Offset   int    `json:"offset"` // in bytes, from 0
	Column   int    `json:"column"` // in characters, from 1
	Found    string `json:"found"`
	Expected string `json:"expected"`
	Caret    string `json:"caret"` // the text around the place, and a line with a caret
}

// Error returns the message with code and status.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Message == "" {
		b.WriteString("the hub refused the request")
	}
	b.WriteString(" (")
	if e.Code != "" {
		b.WriteString(e.Code + ", ")
	}
	fmt.Fprintf(&b, "status %d)", e.Status)
	return b.String()
}

// HasCode reports whether err is the hub's refusal with this code.
func HasCode(err error, code string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

// IsNotFound reports whether err says that a device, module or other record
// does not exist.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound && e.Code != "DeviceNotOnline"
}

// ConnectError says that no request reached the hub.
type ConnectError struct {
	Target string // what was dialled, for people
	Err    error
}

// Error names the target and the cause.
func (e *ConnectError) Error() string { return "no connection to " + e.Target + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// codeName returns the name of a number that IoT Hub's bodies carry where no
// header tells the name: direct methods and bulk results.
func codeName(number int) string {
	switch number {
	case 400004:
		return "ArgumentInvalid"
	case 400005:
		return "ArgumentNull"
	case 400011:
		return "DeviceDefinedMultipleTimes"
	case 401100:
		return "SystemModuleModifyUnauthorizedAccess"
	case 401002, 401000, 401003:
		return "IotHubUnauthorizedAccess"
	case 403800:
		return "DeviceMaximumInflightMethodExceeded"
	case 404001:
		return "DeviceNotFound"
	case 404010:
		return "ModuleNotFound"
	case 404103:
		return "DeviceNotOnline"
	case 404104:
		return "DeviceConnectionClosedRemotely"
	case 409001:
		return "DeviceAlreadyExists"
	case 409002, 409003:
		return "DeviceDefinedMultipleTimes"
	case 409301:
		return "ModuleAlreadyExistsOnDevice"
	case 412001, 412002:
		return "PreconditionFailed"
	case 413001:
		return "MessageTooLarge"
	case 429001, 429002:
		return "ThrottlingException"
	case 504101:
		return "GatewayTimeout"
	case 0:
		return ""
	}
	return strconv.Itoa(number)
}

// problem joins the members of all error bodies.
type problem struct {
	Title            string          `json:"title"`
	Code             string          `json:"code"`
	Detail           string          `json:"detail"`
	Next             string          `json:"next"`
	RequestID        string          `json:"requestId"`
	Message          string          `json:"Message"`
	ExceptionMessage string          `json:"ExceptionMessage"`
	ErrorCode        json.RawMessage `json:"errorCode"`
	TrackingID       string          `json:"trackingId"`
	Query            *QueryFault     `json:"query"`
	Faults           []JobFault      `json:"faults"`
}

// parseError makes an Error of an answer whose status is not 2xx.
func parseError(status int, h http.Header, body []byte) *Error {
	e := &Error{Status: status, Code: h.Get("Iothub-Errorcode"), RequestID: h.Get("X-Ms-Request-Id")}
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n > 0 {
		e.RetryAfter = time.Duration(min(n, 3600)) * time.Second
	}
	var p problem
	if json.Unmarshal(body, &p) != nil {
		e.Message = plainText(body, status)
		return e
	}
	if p.Code != "" || p.Detail != "" {
		e.Code, e.Message, e.Next = firstOf(p.Code, e.Code), firstOf(p.Detail, p.Title), p.Next
		e.RequestID = firstOf(p.RequestID, e.RequestID)
		e.Query, e.Faults = p.Query, p.Faults
		return e
	}
	text := p.Message
	if strings.HasPrefix(text, "{") { // a body inside the body: direct methods
		var inner problem
		if json.Unmarshal([]byte(text), &inner) == nil && inner.Message != "" {
			p, text = inner, inner.Message
		}
	}
	if name, rest, ok := strings.Cut(strings.TrimPrefix(text, "ErrorCode:"), ";"); ok && strings.HasPrefix(text, "ErrorCode:") {
		e.Code, text = firstOf(e.Code, name), rest
	}
	if n, err := strconv.Atoi(strings.Trim(string(p.ErrorCode), `"`)); err == nil {
		e.Code = firstOf(e.Code, codeName(n))
	}
	e.Message = strings.TrimSpace(text)
	e.RequestID = firstOf(e.RequestID, p.RequestID, p.TrackingID)
	if e.Message == "" {
		e.Message = plainText(nil, status)
	}
	return e
}

func plainText(body []byte, status int) string {
	s := strings.TrimSpace(string(body))
	if s == "" || len(s) > 300 || strings.HasPrefix(s, "<") {
		return "the hub answered " + strconv.Itoa(status) + " " + http.StatusText(status)
	}
	return s
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}
