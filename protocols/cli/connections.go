package cli

import "fmt"

type deviceConnectionsCmd struct {
	HubFlags
	OutputFlags
	ID string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run lists why an identity's connections ended.
func (c *deviceConnectionsCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"ENDED", "BEGAN", "SECONDS", "PROTOCOL", "ADDRESS", "CODE", "REASON"}, empty: "No connection has ended yet."}
	for e, err := range s.Connections(ctx, device, module) {
		if err != nil {
			return err
		}
		if e.Refused > 0 {
			e.Reason = fmt.Sprintf("refused, attempts in a row: %d, the last: %s", e.Refused, e.Reason)
		}
		sh.add(e, e.Ended, e.Began, int64(e.Seconds), e.Protocol, e.Address, e.Code, e.Reason)
	}
	return a.print(c.OutputFlags, sh)
}
