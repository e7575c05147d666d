package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type methodGroup struct {
	Invoke methodInvokeCmd `cmd:"" help:"Call a direct method on a device and wait for its answer."`
	List   methodListCmd   `cmd:"" help:"List queued method calls."`
	Show   methodShowCmd   `cmd:"" help:"Show a queued method call, with its answer."`
	Cancel methodCancelCmd `cmd:"" help:"Take back a queued method call that was not sent yet."`
}

type methodInvokeCmd struct {
	WhichHub
	Timeout        time.Duration `help:"How long the device may take to answer, 5s to 5m." default:"30s"`
	ConnectTimeout time.Duration `help:"How long to wait for a device that is offline, up to 5m." default:"0s"`
	WaitForDevice  time.Duration `help:"Queue the call durably until the device takes methods, 1m to 720h." default:"0s" placeholder:"DURATION"`
	OutputFlags
	File    string `short:"f" help:"Read the payload as JSON from a file; - is standard input." placeholder:"FILE"`
	ID      string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
	Method  string `arg:"" name:"method" help:"Name of the method."`
	Payload string `arg:"" optional:"" name:"payload" help:"Payload as JSON; null when absent."`
}

// Run calls the method.
func (c *methodInvokeCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	payload, err := c.payload(a)
	if err != nil {
		return err
	}
	s, err := a.service(HubFlags{WhichHub: c.WhichHub})
	if err != nil {
		return err
	}
	if c.WaitForDevice != 0 {
		if c.ConnectTimeout != 0 {
			return usage("--connect-timeout and --wait-for-device are both given", "Give --wait-for-device alone: it waits durably.")
		}
		return c.queue(a, s, device, module, payload)
	}
	// The hub answers at its own timeout; ours only catches a hub that hangs.
	ctx, stop := context.WithTimeout(a.ctx, c.Timeout+c.ConnectTimeout+15*time.Second)
	defer stop()
	r, err := s.InvokeMethod(ctx, device, module, client.MethodCall{
		Name: c.Method, Payload: payload, ResponseTimeout: c.Timeout, ConnectTimeout: c.ConnectTimeout,
	})
	if err != nil {
		return err
	}
	if err := a.printMethodResult(c.OutputFlags, r); err != nil {
		return err
	}
	if r.Status < 200 || r.Status > 299 {
		return &problem{exit: ExitFailed, what: fmt.Sprintf("the device answered with status %d", r.Status), next: "Its payload above says more."}
	}
	return nil
}

func (c *methodInvokeCmd) payload(a *app) (json.RawMessage, error) {
	switch {
	case c.File != "" && c.Payload != "":
		return nil, usage("the payload is given twice", "Give either PAYLOAD or -f FILE.")
	case c.File != "":
		f, name, err := a.openInput(c.File)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read
		return readDocument(f, name)
	case c.Payload == "":
		return json.RawMessage("null"), nil // Microsoft's SDK for Node answers 400 to an empty body
	case !json.Valid([]byte(c.Payload)):
		return nil, usage(fmt.Sprintf("the payload %q is not JSON", c.Payload), `Quote it for the shell, such as '{"delay":5}' or '"text"'.`)
	}
	return json.RawMessage(c.Payload), nil
}

func (a *app) printMethodResult(o OutputFlags, r client.MethodResult) error {
	if o.Output != "table" {
		return a.printRecord(o, r, []field{{"status", r.Status}, {"payload", r.Payload}})
	}
	var pretty bytes.Buffer
	if len(r.Payload) == 0 || json.Indent(&pretty, r.Payload, "", "  ") != nil {
		pretty.Reset()
		pretty.WriteString("null")
	}
	_, err := io.WriteString(a.io.Out, fmt.Sprintf("status %d\n%s\n", r.Status, printableLines(pretty.String())))
	return err
}
