package device

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-hub/muster/engine"
)

// fakeHub is a hub whose answers a test decides; it keeps what it was told.
type fakeHub struct {
	limits     engine.Limits
	grant      engine.Grant
	refuse     error // of AuthenticateDevice
	refuseLate error // of Connect
	session    *fakeSession
	fault      engine.Fault
	lost       atomic.Int64
}

func (f *fakeHub) RecordRefusal(engine.Credentials, *engine.Error) {}

func newFakeHub() *fakeHub {
	limits, err := engine.LimitsFor(engine.ProfileDefault)
	if err != nil {
		panic(err)
	}
	subs := engine.NoSubscriptions()
	subs[engine.EndpointTwinResponse] = 0
	return &fakeHub{limits: limits, session: &fakeSession{subs: subs, twin: []byte(`{"desired":{"$version":1},"reported":{"$version":1}}`)}}
}

func (f *fakeHub) Fault(engine.TwinID) (engine.Fault, bool) {
	return f.fault, f.fault != engine.Fault{}
}
func (f *fakeHub) FaultLost() { f.lost.Add(1) }

func (f *fakeHub) Limits() engine.Limits { return f.limits }

func (f *fakeHub) AuthenticateDevice(_ context.Context, cr engine.Credentials) (engine.Grant, error) {
	f.grant.ID = cr.ID
	return f.grant, f.refuse
}

func (f *fakeHub) Connect(_ context.Context, cn engine.Connection) (engineSession, error) {
	if f.refuseLate != nil {
		return nil, f.refuseLate
	}
	f.session.mu.Lock()
	defer f.session.mu.Unlock()
	f.session.connection = cn
	if f.session.onConnect != nil {
		f.session.onConnect(cn.Outbox)
	}
	return f.session, nil
}

type fakeSession struct {
	onConnect   func(engine.Outbox)        // before Connect returns
	onPatch     func(engine.Outbox) error  // instead of the change
	onTwin      func(engine.Outbox)        // before the answer
	onTelemetry func(engine.Message) error // instead of taking it
	onSubmit    func(engine.Message, func(error)) error
	onClose     func()
	subs        engine.Subscriptions
	twin        []byte

	mu         sync.Mutex
	connection engine.Connection
	version    int64
	messages   []engine.Message
	times      []time.Time
	ended      error
	closed     []error
}

func (s *fakeSession) Resumed() bool                       { return true }
func (s *fakeSession) Subscriptions() engine.Subscriptions { return s.subs }
func (s *fakeSession) Touch()                              {}

func (s *fakeSession) CompleteMethod(string, int, []byte) {}

func (s *fakeSession) Subscribe(context.Context, engine.Subscriptions) error { return s.Err() }

func (s *fakeSession) Unsubscribe(context.Context, ...engine.Endpoint) error { return s.Err() }

func (s *fakeSession) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

func (s *fakeSession) Close(cause error) {
	if s.onClose != nil {
		s.onClose()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = append(s.closed, cause)
}

func (s *fakeSession) Twin(context.Context) ([]byte, error) {
	if s.onTwin != nil {
		s.onTwin(s.connection.Outbox)
	}
	return s.twin, nil
}

func (s *fakeSession) PatchReported(context.Context, []byte, int64) (int64, error) {
	s.version++
	if s.onPatch != nil {
		return s.version, s.onPatch(s.connection.Outbox)
	}
	return s.version, nil
}

func (s *fakeSession) AcknowledgeMessage(uint16) {}

func (s *fakeSession) take(m engine.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	s.times = append(s.times, time.Now())
	if s.onTelemetry != nil {
		return s.onTelemetry(m)
	}
	return nil
}

func (s *fakeSession) SubmitTelemetry(m engine.Message, done func(error)) error {
	if s.onSubmit != nil {
		return s.onSubmit(m, done)
	}
	if err := s.take(m); err != nil {
		return err
	}
	if done != nil {
		done(nil)
	}
	return nil
}

// taken returns the messages so far.
func (s *fakeSession) taken() []engine.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]engine.Message(nil), s.messages...)
}
