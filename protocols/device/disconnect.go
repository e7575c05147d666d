package device

import (
	"errors"
	"os"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/protocols/wire"
)

// reason is why a connection ended, as logs and metrics name it.
type reason uint8

const (
	reasonGraceful    reason = iota // DISCONNECT
	reasonLost                      // the socket ended without DISCONNECT
	reasonIdle                      // silence beyond keep-alive
	reasonConnectLate               // no CONNECT in time
	reasonRefused                   // CONNACK other than 0
	reasonProtocol                  // not MQTT, or not what a device may send
	reasonTooLarge                  // above a size limit
	reasonSlowReader                // the outbox is full, or a write took too long
	reasonReplaced                  // a newer connection of the identity
	reasonExpired                   // the token ran out
	reasonEnded                     // the hub ended it: disabled, deleted, key changed
	reasonInjected                  // an injected fault
	reasonShutdown                  // the hub is going down
	reasonUnavailable               // the engine refused a request that has no other answer
	reasonFault                     // a fault of the hub
	reasonCount
)

// reasonInfo has the name of each reason and the number by which IoT Hub's
// operators know it (docs/reference/protocol-mqtt.md, What closes a connection).
func (r reason) info() (name string, number int) {
	switch r {
	case reasonGraceful:
		return "disconnected", 0
	case reasonLost:
		return "connection_lost", 404104
	case reasonIdle:
		return "keep_alive_timeout", 404104
	case reasonConnectLate:
		return "connect_timeout", 401003
	case reasonRefused:
		return "refused", 401003
	case reasonProtocol:
		return "protocol_error", 400000
	case reasonTooLarge:
		return "too_large", 413001
	case reasonSlowReader:
		return "slow_reader", 404104
	case reasonReplaced:
		return "replaced", 400027
	case reasonExpired:
		return "token_expired", 401003
	case reasonEnded:
		return "ended_by_hub", 401003
	case reasonInjected:
		return "injected_fault", 503001
	case reasonShutdown:
		return "shutdown", 503001
	case reasonUnavailable:
		return "unavailable", 503001
	}
	return "fault", 500001
}

// ending is the error with which a session's loop ends.
type ending struct {
	reason reason
	number int // when it is more exact than the reason's
	err    error
}

// Error returns the reason's name and the cause.
func (e *ending) Error() string {
	name, _ := e.reason.info()
	if e.err == nil {
		return name
	}
	return name + ": " + e.err.Error()
}

// Unwrap returns the cause.
func (e *ending) Unwrap() error { return e.err }

func end(r reason, err error) *ending {
	_, number := r.info()
	return &ending{reason: r, number: number, err: err}
}

// endingOf classifies an error of the connection or of the engine.
func (s *session) endingOf(err error) *ending {
	if cause := s.out.cause.Load(); cause != nil {
		return s.endedBy(cause)
	}
	if e, ok := errors.AsType[*ending](err); ok {
		return e
	}
	if failed := s.out.failure(); errors.Is(failed, errOutboxFull) || errors.Is(failed, os.ErrDeadlineExceeded) {
		return end(reasonSlowReader, failed)
	}
	switch {
	case errors.Is(err, wire.ErrTooLarge):
		return end(reasonTooLarge, err)
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrUnsupported), errors.Is(err, wire.ErrProtocolLevel):
		return end(reasonProtocol, err)
	}
	if e, ok := errors.AsType[*engine.Error](err); ok {
		if cause := s.es.Err(); cause != nil {
			return s.endedBy(engine.AsError(cause))
		}
		r := reasonUnavailable
		if e.Code == engine.CodeTooLarge {
			r = reasonTooLarge
		}
		return &ending{reason: r, number: s.h.code(e).number, err: e}
	}
	return end(reasonLost, err)
}

// endedBy is the ending that the hub gave to the connection.
func (s *session) endedBy(cause *engine.Error) *ending {
	switch cause.Code {
	case engine.CodeConnectionClosed:
		return end(reasonReplaced, cause)
	case engine.CodeFaultInjected:
		return end(reasonInjected, cause)
	case engine.CodeClosed:
		return end(reasonShutdown, cause)
	case engine.CodeUnauthorized:
		if s.expired(time.Now()) {
			return end(reasonExpired, cause)
		}
	}
	return &ending{reason: reasonEnded, number: s.h.code(cause).number, err: cause}
}
