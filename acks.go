package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/cli"
)

// ackSource opens a data directory whose hub does not run. Opening recovers it
// as a start of the hub does; nothing else is changed.
func ackSource(ctx context.Context, f cli.StoreFlags, std cli.IO) (cli.AckSource, func() error, error) {
	if err := existing(f.Data); err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if std.Err != nil {
		log = slog.New(slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: slog.LevelError}))
	}
	hub, err := engine.Open(ctx, engine.Options{Storage: storeOptions(f), Logger: log})
	if err != nil {
		return nil, nil, errors.Join(err, giveBack(f.Data))
	}
	caller := engine.Caller{Principal: auth.Principal{Kind: auth.Local, Name: "uid=" + strconv.Itoa(os.Getuid()), Permissions: auth.ServiceConnect}, Cause: "verify"}
	end := func() error { return errors.Join(hub.Close(), giveBack(f.Data)) }
	return stoppedHub{hub, caller}, end, nil
}

// stoppedHub is a hub that serves nobody.
type stoppedHub struct {
	hub    *engine.Hub
	caller engine.Caller
}

// Position returns how far the stores have come.
func (s stoppedHub) Position(ctx context.Context) (cli.HubPosition, error) {
	p, err := s.hub.Position(ctx, s.caller)
	return cli.HubPosition{
		Epoch: p.Epoch, EpochNumber: p.EpochNumber, Sequence: p.Sequence, OldestMessage: p.OldestMessage, NewestMessage: p.NewestMessage,
	}, err
}

// Twin returns a device's sections, or cli.ErrNoDevice.
func (s stoppedHub) Twin(ctx context.Context, device string) (reported, desired json.RawMessage, err error) {
	t, err := s.hub.Twin(ctx, s.caller, engine.TwinID{DeviceID: device})
	if e, ok := errors.AsType[*engine.Error](err); ok && e.Code == engine.CodeDeviceNotFound {
		return nil, nil, cli.ErrNoDevice
	}
	if err != nil {
		return nil, nil, err
	}
	return t.Reported.JSON(nil, false), t.Desired.JSON(nil, false), nil
}

// Messages calls see for every message that is kept.
func (s stoppedHub) Messages(ctx context.Context, see func(device, id string) error) error {
	filter := engine.EventFilter{Kinds: []string{engine.EventTelemetry}}
	for cursor := engine.CursorStart; ; {
		list, next, err := s.hub.ReadEvents(ctx, s.caller, filter, cursor, 0)
		if err != nil || next == cursor {
			return err
		}
		for _, e := range list {
			if e.Message == nil {
				continue
			}
			for _, p := range e.Message.System {
				if p.Name != "message-id" {
					continue
				}
				if err := see(e.ID.DeviceID, p.Value); err != nil {
					return err
				}
			}
		}
		cursor = next
	}
}
