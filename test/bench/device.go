package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/wire"
)

// device is one MQTT connection as a device's SDK makes it, with little of its
// cost: the load generator shares the processors with the hub.
type device struct {
	id     string
	stream *wire.Stream
	reader *wire.Reader
	packet []byte
	rid    uint64
	mid    uint16
}

// pool is what all devices of a process borrow their buffers from.
type pool struct{ buffers *wire.Buffers }

func newPool() *pool { return &pool{wire.NewBuffers()} }

// connect opens a connection over TLS, or over a WebSocket on the https
// address, and waits for CONNACK 0.
func (p *pool) connect(ctx context.Context, h *hub, id string, websocket bool) (*device, error) {
	o := wire.DialOptions{TLS: h.tls(), Pool: p.buffers}
	var s *wire.Stream
	var err error
	if websocket {
		s, err = wire.DialWebSocket(ctx, "wss://"+h.https+"/$iothub/websocket", o)
	} else {
		s, err = wire.Dial(ctx, h.mqtts, o)
	}
	if err != nil {
		return nil, err
	}
	d := &device{id: id, stream: s, reader: wire.NewReader(s, p.buffers, 1<<20)}
	if err := d.handshake(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *device) handshake() error {
	token := auth.SignToken(hostName+"/devices/"+d.id, deviceSecret, "", time.Now().Add(time.Hour))
	b, err := wire.AppendConnect(nil, &wire.Connect{
		ClientID: d.id, Username: hostName + "/" + d.id + "/?api-version=2021-04-12", Password: token, KeepAlive: 1200,
	})
	if err != nil {
		return err
	}
	if _, err := d.stream.Write(b); err != nil {
		return err
	}
	var p wire.Packet
	if err := d.reader.ReadPacket(&p); err != nil {
		return fmt.Errorf("wait for CONNACK: %w", err)
	}
	if p.Type != wire.TypeConnack || p.Code != wire.ConnackAccepted {
		return fmt.Errorf("the hub refused %s: %v, code %d", d.id, p.Type, p.Code)
	}
	return nil
}

func (d *device) close() {
	d.reader.Close()
	_ = d.stream.Close()
}

// subscribe subscribes to filters and waits for the answer.
func (d *device) subscribe(filters ...string) error {
	var list []wire.Filter
	for _, f := range filters {
		list = append(list, wire.Filter{Topic: f})
	}
	b, err := wire.AppendSubscribe(nil, 1, list...)
	if err != nil {
		return err
	}
	if _, err := d.stream.Write(b); err != nil {
		return err
	}
	var p wire.Packet
	for p.Type != wire.TypeSuback {
		if err := d.reader.ReadPacket(&p); err != nil {
			return fmt.Errorf("wait for SUBACK: %w", err)
		}
	}
	if slices.Contains(p.Codes, wire.SubackFailure) {
		return fmt.Errorf("a subscription of %s was refused", d.id)
	}
	return nil
}

const (
	filterAnswers = "$iothub/twin/res/#"
	filterDesired = "$iothub/twin/PATCH/properties/desired/#"
	filterMethods = "$iothub/methods/POST/#"
	readTopic     = "$iothub/twin/GET/?$rid="
	patchTopic    = "$iothub/twin/PATCH/properties/reported/?$rid="
	answerTopic   = "$iothub/twin/res/"
	methodTopic   = "$iothub/methods/POST/"
	resultTopic   = "$iothub/methods/res/200/?$rid="
	desiredTopic  = "$iothub/twin/PATCH/properties/desired/"
)

// patch reports properties with QoS 1 and waits for both the acknowledgement
// and the hub's answer that the change is stored.
func (d *device) patch(body []byte) error {
	d.rid++
	if d.mid++; d.mid == 0 {
		d.mid = 1
	}
	rid := strconv.FormatUint(d.rid, 10)
	b, err := wire.AppendPublish(d.packet[:0], wire.Message{Topic: patchTopic + rid, Payload: body, QoS: 1, ID: d.mid})
	if err != nil {
		return err
	}
	d.packet = b
	if _, err := d.stream.Write(b); err != nil {
		return err
	}
	var p wire.Packet
	for acknowledged, answered := false, false; !acknowledged || !answered; {
		if err := d.reader.ReadPacket(&p); err != nil {
			return fmt.Errorf("wait for the answer to a patch: %w", err)
		}
		switch {
		case p.Type == wire.TypePuback && p.ID == d.mid:
			acknowledged = true
		case p.Type == wire.TypePublish && strings.HasPrefix(p.Topic, answerTopic):
			if !strings.HasPrefix(p.Topic, answerTopic+"204/") || !strings.Contains(p.Topic, "$rid="+rid) {
				return fmt.Errorf("a patch of %s was answered with %s %s", d.id, p.Topic, p.Payload)
			}
			answered = true
		}
	}
	return nil
}

// answerMethods answers each direct method at once until the connection ends.
func (d *device) answerMethods() error { return d.serve(func(string, []byte) {}) }

// serve is answerMethods that also tells of every other message, until the
// connection ends. What it tells of is good until told returns.
func (d *device) serve(told func(topic string, payload []byte)) error {
	var p wire.Packet
	for {
		if err := d.reader.ReadPacket(&p); err != nil {
			return err
		}
		if p.Type != wire.TypePublish {
			continue
		}
		if !strings.HasPrefix(p.Topic, methodTopic) {
			told(p.Topic, p.Payload)
			continue
		}
		_, rid, ok := strings.Cut(p.Topic, "$rid=")
		if !ok {
			return fmt.Errorf("a method call without $rid: %s", p.Topic)
		}
		b, err := wire.AppendPublish(d.packet[:0], wire.Message{Topic: resultTopic + rid, Payload: bytes.Clone(p.Payload)})
		if err != nil {
			return err
		}
		d.packet = b
		if _, err := d.stream.Write(b); err != nil {
			return err
		}
	}
}

// readTwin reads the device's twin.
func (d *device) readTwin() error {
	d.rid++
	rid := strconv.FormatUint(d.rid, 10)
	b, err := wire.AppendPublish(d.packet[:0], wire.Message{Topic: readTopic + rid})
	if err != nil {
		return err
	}
	d.packet = b
	if _, err := d.stream.Write(b); err != nil {
		return err
	}
	var p wire.Packet
	for {
		if err := d.reader.ReadPacket(&p); err != nil {
			return fmt.Errorf("wait for the twin: %w", err)
		}
		if p.Type != wire.TypePublish || !strings.HasPrefix(p.Topic, answerTopic) {
			continue
		}
		if !strings.HasPrefix(p.Topic, answerTopic+"200/") || !strings.Contains(p.Topic, "$rid="+rid) {
			return fmt.Errorf("a read of the twin of %s was answered with %s %s", d.id, p.Topic, p.Payload)
		}
		return nil
	}
}
