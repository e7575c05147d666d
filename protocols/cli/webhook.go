package cli

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type webhookGroup struct {
	List         webhookListCmd    `cmd:"" help:"List the webhooks and how far they have come."`
	Show         webhookShowCmd    `cmd:"" help:"Show one webhook."`
	Create       webhookCreateCmd  `cmd:"" help:"Make a webhook and print its secret, once."`
	Update       webhookUpdateCmd  `cmd:"" help:"Change a webhook; what is not given stays."`
	Enable       webhookEnableCmd  `cmd:"" help:"Let webhooks go on where they stood."`
	Disable      webhookDisableCmd `cmd:"" help:"Stop webhooks; they keep their place."`
	Delete       webhookDeleteCmd  `cmd:"" help:"Delete a webhook with its dead letters."`
	Test         webhookTestCmd    `cmd:"" help:"Post a test event and show the answer."`
	Replay       webhookReplayCmd  `cmd:"" help:"Let a webhook go on from another place."`
	RotateSecret webhookRotateCmd  `cmd:"" help:"Give a webhook a new secret and print it, once."`
	DeadLetters  deadLetterGroup   `cmd:"" help:"Events that a webhook gave up."`
}

type deadLetterGroup struct {
	List   deadListCmd   `cmd:"" help:"List the events that a webhook gave up, oldest first."`
	Retry  deadRetryCmd  `cmd:"" help:"Post dead letters again; those that are taken are gone from the list."`
	Delete deadDeleteCmd `cmd:"" help:"Delete dead letters."`
}

type webhookListCmd struct {
	HubFlags
	OutputFlags
	Limit int `help:"At most so many; 0 lists all." default:"100"`
}

// Run lists the webhooks.
func (c *webhookListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"WEBHOOK", "STATUS", "LAG", "DELIVERED", "FAILED", "DEAD LETTERS", "URL"}, empty: "No webhooks."}
	for w, err := range s.Webhooks(ctx) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all.", c.Limit)
			break
		}
		sh.add(w, w.ID, w.Status, w.Lag, w.Delivered, w.Failed, w.DeadLetters, w.URL)
	}
	return a.print(c.OutputFlags, sh)
}

func (a *app) printWebhook(o OutputFlags, w client.Webhook) error {
	fields := []field{
		{"webhook", w.ID}, {"url", w.URL}, {"status", w.Status}, {"mode", w.Mode}, {"devices", orAll(w.Devices, "all")}, {"kinds", orAll(w.Kinds, "all but telemetry")},
	}
	optional := func(name string, value any, there bool) {
		if there || o.Output == "csv" {
			fields = append(fields, field{name, value})
		}
	}
	optional("description", w.Description, w.Description != "")
	optional("headers", strings.Join(w.HeaderNames, ","), len(w.HeaderNames) > 0)
	optional("paused by the hub", w.PausedReason, w.PausedReason != "")
	fields = append(fields,
		field{"lag", w.Lag}, field{"lag seconds", math.Round(w.LagSeconds*10) / 10}, field{"in flight", w.InFlight}, field{"waiting", w.Waiting},
		field{"delivered", w.Delivered}, field{"failed requests", w.Failed}, field{"dead", w.Dead}, field{"dead letters", w.DeadLetters},
	)
	optional("dead dropped", w.DeadDropped, w.DeadDropped > 0)
	fields = append(fields, field{"last success", w.LastSuccess}, field{"last failure", w.LastFailure})
	optional("last error", w.LastError, w.LastError != "")
	optional("failing since", w.FailingSince, !w.FailingSince.IsZero())
	optional("next attempt", w.NextAttempt, !w.NextAttempt.IsZero())
	optional("old secret until", w.OldSecretUntil, !w.OldSecretUntil.IsZero())
	fields = append(fields, field{"cursor", w.Cursor}, field{"created", w.Created}, field{"updated", w.Updated})
	optional("secret", w.Secret, w.Secret != "")
	if err := a.printRecord(o, w, fields); err != nil {
		return err
	}
	if w.Secret != "" {
		a.note("Keep the secret: the hub does not show it again.")
	}
	return nil
}

func orAll(list []string, all string) string {
	if len(list) == 0 {
		return all
	}
	return strings.Join(list, ",")
}

type webhookShowCmd struct {
	HubFlags
	OutputFlags
	Name string `arg:"" help:"Name of the webhook."`
}

// Run shows a webhook.
func (c *webhookShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	w, err := s.Webhook(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.printWebhook(c.OutputFlags, w)
}

// WebhookFlags are what one sets of a webhook.
type WebhookFlags struct {
	Description *string  `help:"A text for people." placeholder:"TEXT"`
	Device      []string `help:"Only events of this device and its modules; repeatable; PREFIX* for many." sep:"none" placeholder:"ID"`
	Kind        []string `help:"Only events of this kind, such as twin.reported or twin.*; repeatable. Without it all but telemetry; '*' takes all." sep:"none" placeholder:"KIND"`
	Mode        string   `help:"How events are put into requests: structured, batch or binary." enum:",structured,batch,binary" default:"" placeholder:"MODE"`
	HeaderFile  string   `help:"File with own headers, such as Authorization: one NAME: VALUE a line. They replace those before; an empty file removes them." placeholder:"FILE"`
}

func (f *WebhookFlags) apply(w *client.WebhookSettings) error {
	if f.Description != nil {
		w.Description = *f.Description
	}
	if f.Device != nil {
		w.Devices = f.Device
	}
	if f.Kind != nil {
		w.Kinds = f.Kind
	}
	if f.Mode != "" {
		w.Mode = f.Mode
	}
	if f.HeaderFile == "" {
		return nil
	}
	text, err := os.ReadFile(f.HeaderFile)
	if err != nil {
		return usage("--header-file: "+pathError(err), "Give a file with one NAME: VALUE a line.")
	}
	w.Headers = map[string]string{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return usage("--header-file: a line is no header", "Write one NAME: VALUE a line.")
		}
		w.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return nil
}

type webhookCreateCmd struct {
	HubFlags
	OutputFlags
	WebhookFlags
	Disabled bool   `help:"Don't send yet."`
	Name     string `arg:"" help:"Name of the webhook."`
	URL      string `arg:"" name:"url" help:"Where events are posted, https or http."`
}

// Run makes a webhook.
func (c *webhookCreateCmd) Run(a *app) error {
	settings := client.WebhookSettings{URL: c.URL, Paused: c.Disabled}
	if err := c.apply(&settings); err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := s.Webhook(ctx, c.Name); err == nil {
		return &problem{exit: ExitConflict, what: fmt.Sprintf("the webhook %q exists already", c.Name), next: "Change it with `muster webhook update`, or choose another name."}
	} else if !client.IsNotFound(err) {
		return err
	}
	w, err := s.PutWebhook(ctx, c.Name, settings, "")
	if err != nil {
		return err
	}
	return a.printWebhook(c.OutputFlags, w)
}

type webhookUpdateCmd struct {
	HubFlags
	OutputFlags
	WebhookFlags
	URL        string `name:"url" help:"Where events are posted." placeholder:"URL"`
	AllDevices bool   `help:"Events of all devices again." xor:"devices"`
	AllKinds   bool   `help:"All kinds but telemetry again." xor:"kinds"`
	Name       string `arg:"" help:"Name of the webhook."`
}

// Run changes a webhook.
func (c *webhookUpdateCmd) Run(a *app) error {
	return a.changeWebhook(c.HubFlags, c.OutputFlags, c.Name, func(w *client.WebhookSettings) error {
		if c.URL != "" {
			w.URL = c.URL
		}
		if c.AllDevices {
			w.Devices = nil
		}
		if c.AllKinds {
			w.Kinds = nil
		}
		return c.apply(w)
	})
}

func (a *app) changeWebhook(h HubFlags, o OutputFlags, name string, change func(w *client.WebhookSettings) error) error {
	s, ctx, stop, err := a.connect(h)
	if err != nil {
		return err
	}
	defer stop()
	w, err := s.Webhook(ctx, name)
	if err != nil {
		return err
	}
	settings := w.Settings()
	if err := change(&settings); err != nil {
		return err
	}
	if w, err = s.PutWebhook(ctx, name, settings, w.ETag); err != nil {
		return err
	}
	return a.printWebhook(o, w)
}

type webhookEnableCmd struct {
	HubFlags
	OutputFlags
	Name string `arg:"" help:"Name of the webhook."`
}

// Run enables a webhook.
func (c *webhookEnableCmd) Run(a *app) error {
	return a.changeWebhook(c.HubFlags, c.OutputFlags, c.Name, func(w *client.WebhookSettings) error { w.Paused = false; return nil })
}

type webhookDisableCmd struct {
	HubFlags
	OutputFlags
	Name string `arg:"" help:"Name of the webhook."`
}

// Run disables a webhook.
func (c *webhookDisableCmd) Run(a *app) error {
	return a.changeWebhook(c.HubFlags, c.OutputFlags, c.Name, func(w *client.WebhookSettings) error { w.Paused = true; return nil })
}

type webhookDeleteCmd struct {
	HubFlags
	Yes  bool   `short:"y" help:"Don't ask."`
	Name string `arg:"" help:"Name of the webhook."`
}

// Run deletes a webhook.
func (c *webhookDeleteCmd) Run(a *app) error {
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Delete the webhook %s with its dead letters?", printable(c.Name)))
	if err != nil {
		return err
	}
	defer stop()
	if err := s.DeleteWebhook(ctx, c.Name); err != nil {
		return err
	}
	a.note("Deleted webhook %s.", printable(c.Name))
	return nil
}

type webhookTestCmd struct {
	HubFlags
	OutputFlags
	Name string `arg:"" help:"Name of the webhook."`
}

// Run posts a test event.
func (c *webhookTestCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	t, err := s.TestWebhook(ctx, c.Name)
	if err != nil {
		return err
	}
	fields := []field{{"delivered", t.Delivered}, {"status", t.Status}, {"latency ms", t.Latency}, {"event", t.EventID}, {"error", t.Error}}
	if t.Error == "" && c.Output != "csv" {
		fields = fields[:4]
	}
	if err := a.printRecord(c.OutputFlags, t, fields); err != nil {
		return err
	}
	if !t.Delivered {
		next := cmp.Or(t.Next, "Mend the endpoint or the webhook's URL, then run the test again.")
		return &problem{exit: ExitFailed, what: "the endpoint did not take the event", why: t.Error, next: next}
	}
	return nil
}

type webhookReplayCmd struct {
	HubFlags
	OutputFlags
	From string `required:"" help:"Where it goes on: an event's cursor, start, or a time such as 2026-01-31T08:00:00Z." placeholder:"CURSOR|TIME"`
	Name string `arg:"" help:"Name of the webhook."`
}

// Run sets where a webhook goes on.
func (c *webhookReplayCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	w, err := s.ReplayWebhook(ctx, c.Name, c.From)
	if err != nil {
		return err
	}
	if err := a.printWebhook(c.OutputFlags, w); err != nil {
		return err
	}
	if w.Paused {
		a.note("The webhook is paused; `muster webhook enable %s` lets it go on from there.", printable(w.ID))
	}
	return nil
}

type webhookRotateCmd struct {
	HubFlags
	OutputFlags
	Overlap time.Duration `help:"How long the secret before also signs, at most 168h; 0 ends it at once." default:"24h"`
	Name    string        `arg:"" help:"Name of the webhook."`
}

// Run gives a webhook a new secret.
func (c *webhookRotateCmd) Run(a *app) error {
	if c.Overlap < 0 {
		return usage("--overlap is negative", "Give 0 or a span such as 24h.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	w, err := s.RotateWebhookSecret(ctx, c.Name, c.Overlap)
	if err != nil {
		return err
	}
	return a.printWebhook(c.OutputFlags, w)
}

type deadListCmd struct {
	HubFlags
	OutputFlags
	Limit int    `help:"At most so many; 0 lists all." default:"100"`
	Name  string `arg:"" help:"Name of the webhook."`
}

// Run lists dead letters.
func (c *deadListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"NUMBER", "TIME", "ATTEMPTS", "ERROR", "EVENT"}, empty: "No dead letters."}
	for d, err := range s.WebhookDeadLetters(ctx, c.Name) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all.", c.Limit)
			break
		}
		event := d.Event
		if c.Output == "table" && len(event) > 200 {
			event = strings.ToValidUTF8(event[:200], "") + "..."
		}
		sh.add(d, d.Number, d.Time, d.Attempts, d.Error, event)
	}
	return a.print(c.OutputFlags, sh)
}

// DeadLetterArgs name dead letters: by number, or all of them.
type DeadLetterArgs struct {
	All    bool     `help:"All of them."`
	Name   string   `arg:"" help:"Name of the webhook."`
	Number []uint64 `arg:"" optional:"" help:"Number of a dead letter, as the list shows it."`
}

func (d *DeadLetterArgs) check() error {
	if d.All == (len(d.Number) > 0) {
		return usage("which dead letters is not clear", "Give their numbers, or --all.")
	}
	return nil
}

type deadRetryCmd struct {
	HubFlags
	OutputFlags
	DeadLetterArgs
}

// deadTry is a dead letter's number with what came of it.
type deadTry struct {
	Number uint64 `json:"number"`
	client.WebhookTry
}

// failuresInARow ends a retry of all: the endpoint does not work yet.
const failuresInARow = 3

// Run posts dead letters again, in their order.
func (c *deadRetryCmd) Run(a *app) error {
	if err := c.check(); err != nil {
		return err
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	numbers := c.Number
	if c.All {
		ctx, stop := a.with(c.HubFlags)
		defer stop()
		for d, err := range s.WebhookDeadLetters(ctx, c.Name) {
			if err != nil {
				return err
			}
			numbers = append(numbers, d.Number)
		}
	}
	sh := &sheet{columns: []string{"NUMBER", "DELIVERED", "STATUS", "LATENCY MS", "ERROR"}, empty: "No dead letters."}
	failed, row := 0, 0
	for i, n := range numbers {
		ctx, stop := a.with(c.HubFlags) // each waits for its own answer
		t, err := s.RetryWebhookDead(ctx, c.Name, n)
		stop()
		if err != nil {
			return err
		}
		sh.add(deadTry{n, t}, n, t.Delivered, t.Status, t.Latency, t.Error)
		if t.Delivered {
			row = 0
			continue
		}
		failed++
		if row++; row == failuresInARow && i+1 < len(numbers) {
			a.note("%d in a row failed; the other %d were not tried.", row, len(numbers)-i-1)
			break
		}
	}
	if err := a.print(c.OutputFlags, sh); err != nil {
		return err
	}
	if failed > 0 {
		return &problem{exit: ExitFailed, what: fmt.Sprintf("%d dead letters were not taken", failed), next: "`muster webhook test " + printable(c.Name) + "` shows what the endpoint answers."}
	}
	return nil
}

type deadDeleteCmd struct {
	HubFlags
	Yes bool `short:"y" help:"Don't ask."`
	DeadLetterArgs
}

// Run deletes dead letters.
func (c *deadDeleteCmd) Run(a *app) error {
	if err := c.check(); err != nil {
		return err
	}
	what := fmt.Sprintf("%d dead letters", len(c.Number))
	if c.All {
		what = "all dead letters"
	}
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Delete %s of %s? Their events are lost.", what, printable(c.Name)))
	if err != nil {
		return err
	}
	defer stop()
	numbers := c.Number
	if c.All {
		numbers = []uint64{0}
	}
	deleted := 0
	for _, number := range numbers {
		n, err := s.DeleteWebhookDead(ctx, c.Name, number)
		if err != nil {
			return err
		}
		deleted += n
	}
	a.note("Deleted %d dead letters.", deleted)
	return nil
}
