package service

import (
	"context"
	"encoding/json"
	"time"

	"github.com/muster-hub/muster/engine"
)

type twinChange = func(context.Context, engine.Caller, engine.TwinID, engine.TwinUpdate, engine.IfMatch) (engine.Twin, error)

// methodBytes bounds the body of a method call: the largest payload that any
// limits profile allows, and the envelope around it.
const methodBytes = 128<<10 + 16<<10

// methodBody is the body of a method call.
type methodBody struct {
	Name            string          `json:"methodName"`
	Payload         json.RawMessage `json:"payload,omitempty" doc:"Any JSON value; none is sent when absent."`
	ResponseTimeout int             `json:"responseTimeoutInSeconds,omitempty" doc:"5 to 300, 30 when absent."`
	ConnectTimeout  int             `json:"connectTimeoutInSeconds,omitempty" doc:"0 to 300, at most the response timeout; 0 when absent."`
}

type methodResult struct {
	Status  int             `json:"status" doc:"Chosen by the device."`
	Payload json.RawMessage `json:"payload" doc:"The device's answer; null when it sent none."`
}

func invokeMethod(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	m, err := parseMethod(body)
	if err != nil {
		return answer{}, err
	}
	limits := c.hub.Limits()
	response := m.ResponseTimeout
	if response == 0 {
		response = 30 * time.Second
	}
	c.wait(min(response, limits.ResponseTimeoutMax) + min(m.ConnectTimeout, limits.ConnectTimeoutMax))
	r, err := c.hub.InvokeMethod(c.r.Context(), c.caller, c.target(), m)
	return answer{body: methodResult{r.Status, r.Payload}}, err
}

// parseMethod reads the body of a method call. The engine judges the timeouts;
// only an explicit zero must be refused here, since it means the default there.
func parseMethod(body []byte) (engine.MethodCall, error) {
	f, err := object(body, "")
	if err != nil {
		return engine.MethodCall{}, err
	}
	return methodOf(f)
}

func methodOf(f fields) (m engine.MethodCall, err error) {
	if m.Name, err = f.text("methodName"); err != nil {
		return m, err
	}
	if m.Name == "" {
		return m, &engine.Error{Code: engine.CodeArgumentNull, Message: f.name("methodName") + " is missing; expected the method's name"}
	}
	if raw, ok := f.members["payload"]; ok {
		m.Payload = raw
	}
	for _, t := range []struct {
		key string
		to  *time.Duration
	}{{"responseTimeoutInSeconds", &m.ResponseTimeout}, {"connectTimeoutInSeconds", &m.ConnectTimeout}} {
		n, ok, err := f.integer(t.key)
		if err != nil {
			return m, err
		}
		if n < 0 || n > 1e6 || ok && n == 0 && t.to == &m.ResponseTimeout {
			return m, invalid("%s is out of range; expected 5 to 300 for the response and 0 to 300 for the connection", f.name(t.key))
		}
		*t.to = time.Duration(n) * time.Second
	}
	return m, nil
}
