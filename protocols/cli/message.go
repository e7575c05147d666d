package cli

import (
	"maps"
	"slices"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type messageGroup struct {
	Send     messageSendCmd     `cmd:"" help:"Put a message into a device's queue."`
	List     messageListCmd     `cmd:"" help:"List the messages that wait for a device."`
	Purge    messagePurgeCmd    `cmd:"" help:"Remove the messages that wait for a device."`
	Feedback messageFeedbackCmd `cmd:"" help:"Receive what became of messages, and remove it from the hub."`
}

type messageSendCmd struct {
	HubFlags
	OutputFlags
	Ack         string            `help:"Which feedback is wanted: none, positive, negative or full." enum:"none,positive,negative,full" default:"none"`
	TTL         time.Duration     `name:"ttl" help:"How long the message may wait, up to 48h." default:"1h"`
	MessageID   string            `help:"Message id; made up when absent." placeholder:"ID"`
	ContentType string            `help:"Content type, such as application/json." placeholder:"TYPE"`
	Property    map[string]string `help:"Application property; may be repeated." placeholder:"NAME=VALUE"`
	ID          string            `arg:"" name:"id" help:"DEVICE."`
	Body        string            `arg:"" optional:"" name:"body" maybeempty:"" help:"Text of the message."`
}

// Run sends the message.
func (c *messageSendCmd) Run(a *app) error {
	if c.TTL < time.Second {
		return usage("--ttl is shorter than a second", "Give a time such as 30s, 5m or 48h.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	m := client.DeviceboundMessage{
		Body: []byte(c.Body), MessageID: c.MessageID, ContentType: c.ContentType, Ack: c.Ack, TimeToLive: int64(c.TTL / time.Second),
	}
	for _, name := range slices.Sorted(maps.Keys(c.Property)) {
		m.Properties = append(m.Properties, client.MessageProperty{Name: name, Value: c.Property[name]})
	}
	q, err := s.SendMessage(ctx, c.ID, m)
	if err != nil {
		return err
	}
	return a.printRecord(c.OutputFlags, q, []field{{"messageId", q.MessageID}, {"sequence", q.Sequence}, {"expiryTime", q.ExpiryTime}})
}

type messageListCmd struct {
	HubFlags
	OutputFlags
	Limit int    `help:"At most so many, 1 to 50." default:"50"`
	ID    string `arg:"" name:"id" help:"DEVICE."`
}

// Run lists the messages.
func (c *messageListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, err := s.Messages(ctx, c.ID, c.Limit)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"SEQUENCE", "MESSAGE", "ENQUEUED", "EXPIRES", "DELIVERIES", "STATE", "BYTES"}, empty: "No message waits."}
	for _, m := range list {
		state := "enqueued"
		if m.Invisible {
			state = "invisible"
		}
		sh.add(m, m.Sequence, m.MessageID, m.EnqueuedTime, m.ExpiryTime, m.DeliveryCount, state, len(m.Body))
	}
	return a.print(c.OutputFlags, sh)
}

type messagePurgeCmd struct {
	HubFlags
	OutputFlags
	ID string `arg:"" name:"id" help:"DEVICE."`
}

// Run purges the queue.
func (c *messagePurgeCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	n, err := s.PurgeMessages(ctx, c.ID)
	if err != nil {
		return err
	}
	return a.printRecord(c.OutputFlags, map[string]int{"totalMessagesPurged": n}, []field{{"totalMessagesPurged", n}})
}

type messageFeedbackCmd struct {
	HubFlags
	OutputFlags
}

// Run receives one batch, prints it, and then removes it.
func (c *messageFeedbackCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, token, err := s.ReceiveFeedback(ctx)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"TIME", "DEVICE", "MESSAGE", "STATUS"}, empty: "There is no feedback."}
	for _, f := range list {
		sh.add(f, f.Time, f.DeviceID, f.MessageID, f.Status)
	}
	if err := a.print(c.OutputFlags, sh); err != nil || token == "" {
		return err
	}
	return s.CompleteFeedback(ctx, token)
}
