package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/protocols/client"
)

// waitText says what runs wait for that stand at a host call.
func waitText(op string) string {
	switch op {
	case "":
		return ""
	case "dev.call":
		return "an answer of the device"
	case "connect":
		return "the device to connect"
	case "dev.wait":
		return "the device"
	case "ctx.sleep", "ctx.until_":
		return "a moment"
	case "ctx.approve":
		return "approval"
	case "ctx.http":
		return "a server"
	case "dev.run":
		return "another run"
	case "fleet.run":
		return "a job"
	}
	return op
}

// stepText is what a step did, in a line: the call and its arguments, without
// those that are as usual.
func stepText(s *client.RunStep) string {
	words := []string{s.Op}
	if text := argsText(s.Op, s.Args); text != "" {
		words = append(words, text)
	}
	return strings.Join(words, " ")
}

func argsText(op string, args json.RawMessage) string {
	read := func(to any) bool { return json.Unmarshal(args, to) == nil }
	switch op {
	case "dev.get":
		var a pattern.GetArgs
		if read(&a) {
			return a.Path
		}
	case "dev.call":
		var a pattern.CallArgs
		if read(&a) {
			return joined(" ", a.Method, string(a.Payload), named("timeout", a.Timeout), named("online", a.Online))
		}
	case "dev.desire", "dev.tag":
		var a pattern.PatchArgs
		if read(&a) {
			return brief(a.Patch)
		}
	case "dev.wait":
		var a pattern.WaitArgs
		if read(&a) {
			vars := ""
			if len(a.Vars) > 0 {
				raw, _ := json.Marshal(a.Vars) // what was read before
				vars = "with " + string(raw)
			}
			return joined(" ", a.Where, vars, named("timeout", a.Timeout))
		}
	case "ctx.sleep", "ctx.until_":
		var a pattern.SleepArgs
		if read(&a) {
			return joined(" ", a.For, a.Until)
		}
	case "ctx.approve":
		var a pattern.ApproveArgs
		if read(&a) {
			return joined(" ", string(quoteJSON(a.Question)), named("by", a.By), named("timeout", a.Timeout))
		}
	case "ctx.http":
		var a pattern.HTTPArgs
		if read(&a) {
			method := a.Method
			if method == "" {
				method = "GET"
			}
			return joined(" ", method, a.URL)
		}
	case "dev.run", "fleet.run":
		var a pattern.RunArgs
		if read(&a) {
			return joined(" ", a.Pattern, string(a.Params), named("where", a.Where), named("timeout", a.Timeout))
		}
	}
	if string(args) == "{}" {
		return ""
	}
	return string(args)
}

func named(name, value string) string {
	if value == "" {
		return ""
	}
	return name + "=" + value
}

// joined joins what is not empty.
func joined(by string, parts ...string) string {
	var list []string
	for _, p := range parts {
		if p != "" {
			list = append(list, p)
		}
	}
	return strings.Join(list, by)
}

// outcomeText is what came of a step.
func outcomeText(s *client.RunStep) string {
	switch {
	case s.Fault != nil:
		text := faultLine(s.Fault)
		if len(s.Fault.Payload) > 0 {
			text += " " + string(s.Fault.Payload)
		}
		return text
	case len(s.Result) == 0 && (s.Op == "dev.get" || s.Op == "kv.get"):
		return "nothing"
	case len(s.Result) == 0:
		return "done"
	case s.Op == "dev.call":
		var r struct {
			Status  int             `json:"status"`
			Payload json.RawMessage `json:"payload"`
		}
		if json.Unmarshal(s.Result, &r) == nil && r.Status != 0 {
			return joined(" ", fmt.Sprint(r.Status), string(r.Payload))
		}
	}
	return string(s.Result)
}

// secondsText is a span of seconds, for people.
func secondsText(s float64) string { return tookText(time.Duration(s * float64(time.Second))) }

// tookText is how long something took, with three digits at most.
func tookText(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	text := d.Round(time.Second).String()
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}
	if short, ok := strings.CutSuffix(text, "h0m"); ok {
		text = short + "h"
	}
	return text
}
