package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/simulator"
)

// AckSource is what verify --acks compares a log with.
type AckSource = simulator.Source

// HubPosition is how far an AckSource has come.
type HubPosition = client.Position

// ErrNoDevice is what an AckSource returns for a device that is not there.
var ErrNoDevice = simulator.ErrNoDevice

// verifyAcks proves that a hub holds what an acknowledgement log says that it
// acknowledged.
func (c *verifyCmd) verifyAcks(a *app) (err error) {
	f, err := os.Open(c.Acks)
	if err != nil {
		return &problem{exit: ExitUsage, what: "the acknowledgement log cannot be read", why: pathError(err), next: "`muster simulate --ack-log FILE` writes one."}
	}
	acks, err := simulator.ReadAcks(f)
	_ = f.Close() // only read
	if err != nil {
		return &problem{exit: ExitFailed, what: c.Acks + " is no whole acknowledgement log", why: err.Error(), next: "Give a log that `muster simulate --ack-log` wrote, as it is."}
	}
	if acks.Reported+acks.Telemetry == 0 {
		return &problem{exit: ExitFailed, what: c.Acks + " holds no acknowledgement, so there is nothing to prove", next: "Let `muster simulate --ack-log FILE` run longer."}
	}
	src, end, err := c.ackSource(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	v, err := acks.Verify(a.ctx, src, c.Until)
	if err != nil {
		return err
	}
	return a.printFindings(c.OutputFlags, c.ackFindings(acks, v))
}

// ackSource is the hub that --hub names or that runs with --data, or else the directory itself.
func (c *verifyCmd) ackSource(a *app) (AckSource, func() error, error) {
	remote := c.Hub != "" && (a.given("hub") != "" || a.given("data") == "") // as a.service decides
	if flag := a.given("ca", "port"); flag != "" && !remote {
		return nil, nil, usage(flag+" is for a hub that --hub names; the hub of --data is reached by its socket", "Leave it out, or give --hub FILE.")
	}
	if flag := a.given("master-key-file", "memory"); flag != "" && remote {
		return nil, nil, usage(flag+" is for a directory, and --hub names a hub that runs", "Leave it out, or give --data DIR instead of --hub.")
	}
	s, err := a.service(HubFlags{WhichHub: WhichHub{Data: c.Data, RemoteHub: c.RemoteHub}})
	if err != nil {
		return nil, nil, err
	}
	_, err = s.Position(a.ctx)
	if err == nil {
		return simulator.HubSource(s), func() error { s.Close(); return nil }, nil
	}
	s.Close()
	if _, unreached := errors.AsType[*client.ConnectError](err); !unreached || remote || a.hooks.AckSource == nil {
		return nil, nil, err
	}
	a.note("No hub runs with %s; looking at the data directory.", c.Data)
	return a.hooks.AckSource(a.ctx, c.StoreFlags, a.io)
}

// ackFindings says for people what a verification found.
func (c *verifyCmd) ackFindings(acks *simulator.Acks, v simulator.Verdict) []Finding {
	var list []Finding
	add := func(check, level, next, format string, args ...any) {
		list = append(list, Finding{Check: check, Level: level, Text: fmt.Sprintf(format, args...), Next: next})
	}
	level := "fail"
	if c.Partial {
		level = "warn"
	}
	for _, text := range acks.Broken {
		add("log", level, "When its simulator was killed, --partial checks what the log holds.", "%s: %s.", c.Acks, text)
	}
	if v.Strangers > 0 {
		add("log", level, "When its simulator was killed, --partial checks what the log holds.",
			"The hub keeps %d messages of this log's runs that the log does not mention: lines are missing.", v.Strangers)
	}
	if v.OtherEpoch && c.Until == 0 {
		add("epoch", "warn", "Give --until with the sequence that the backup named.",
			"The hub was restored from a backup after this log: what was acknowledged behind the backup is gone.")
	}
	for _, text := range acks.Backwards {
		add("missing", "fail", "", "%s.", text)
	}
	for _, text := range v.Missing {
		add("missing", "fail", "", "%s.", text)
	}
	for _, k := range []struct {
		check, what string
		count       simulator.Count
	}{
		{"reported", "acknowledged reports", v.Reported},
		{"desired", "versions of desired properties, as devices were told them,", v.Desired},
		{"telemetry", "acknowledged messages", v.Telemetry},
	} {
		if k.count == (simulator.Count{}) {
			continue
		}
		if n := k.count; n.Dropped+n.MayDrop > 0 {
			add(k.check, "warn", "", "%d acknowledged messages are not there; %d of them are older than the oldest that retention has left (position %d), %d may be.",
				n.Dropped+n.MayDrop, n.Dropped, v.Oldest, n.MayDrop)
		}
		level := "ok"
		if k.count.Missing > 0 {
			level = "warn" // each miss has failed already
		}
		text := fmt.Sprintf("%d %s of %d devices were looked up, %d missing", k.count.Checked, k.what, acks.Devices(), k.count.Missing)
		if c.Until > 0 {
			text += fmt.Sprintf("; %d lie behind sequence %d, and of %d the log can't tell", k.count.After, c.Until, k.count.Undecided)
		}
		add(k.check, level, "", "%s.", text)
	}
	if c.Until > 0 && v.Reported.Checked+v.Telemetry.Checked == 0 {
		add("until", "fail", "Give the sequence of a backup that was made while the log was written, or after.", "Nothing in the log lies for certain at or before sequence %d.", c.Until)
	}
	add("unanswered", "ok", "", "%d requests never got an answer and may be there or not; %d messages of them are. %d messages are there more than once, as at-least-once allows.",
		acks.Unknown, v.Arrived, v.Duplicates)
	if acks.Methods > 0 {
		add("methods", "ok", "", "%d methods were answered; a hub stores no answers, so there is nothing to look up.", acks.Methods)
	}
	return list
}
