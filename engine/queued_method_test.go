package engine_test

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
)

func queueMethod(t *testing.T, h *engine.Hub, id engine.TwinID, name string) engine.QueuedMethod {
	t.Helper()
	q, err := h.QueueMethod(t.Context(), enginetest.Owner(), id, engine.MethodCall{Name: name, Payload: []byte(`{"n":1}`)}, time.Hour)
	if err != nil {
		t.Fatalf("queue %s: %v", name, err)
	}
	return q
}

func endOf(t *testing.T, h *engine.Hub, id engine.TwinID, call string) engine.QueuedMethod {
	t.Helper()
	q, err := h.WaitQueuedMethod(t.Context(), enginetest.Owner(), id, call, 10*time.Second)
	if err != nil {
		t.Fatalf("wait for %s: %v", call, err)
	}
	return q
}

// Microsoft's SDK for Node answers 400 to an empty body, as no JSON.
func TestQueuedMethodWithoutPayloadSendsNull(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "pump"}
	if _, err := enginetest.Identity(t, h, id); err != nil {
		t.Fatal(err)
	}
	d := enginetest.Connect(t, h, id, engine.EndpointMethod)
	d.Answer(func(m enginetest.Method) (int, []byte) { return 200, []byte(strconv.Quote(string(m.Payload))) })
	q, err := h.QueueMethod(t.Context(), enginetest.Owner(), id, engine.MethodCall{Name: "m"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if q = endOf(t, h, id, q.ID); q.Status != engine.QueuedSucceeded || string(q.Result.Payload) != `"null"` {
		t.Errorf("%+v, the device got %s; want null", q, q.Result.Payload)
	}
}

func TestQueuedMethodsAreSentInOrderWhenTheDeviceComes(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "pump"}
	if _, err := enginetest.Identity(t, h, id); err != nil {
		t.Fatal(err)
	}
	var calls []string
	for _, name := range []string{"a", "b", "c", "d"} {
		calls = append(calls, queueMethod(t, h, id, name).ID)
	}
	if q, err := h.CancelQueuedMethod(t.Context(), enginetest.Owner(), id, calls[1]); err != nil || q.Status != engine.QueuedCanceled {
		t.Fatalf("cancel: %+v, %v", q, err)
	}
	_, err := h.CancelQueuedMethod(t.Context(), enginetest.Owner(), id, calls[1])
	wantCode(t, err, engine.CodePreconditionFailed)
	d, err := enginetest.TryConnect(t, h, id, false)
	if err != nil {
		t.Fatal(err)
	}
	d.Answer(func(m enginetest.Method) (int, []byte) { return 209, []byte(`"did ` + m.Name + `"`) })
	set := engine.NoSubscriptions()
	set[engine.EndpointMethod] = 0
	if err := d.Session.Subscribe(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	for i, want := range []engine.QueuedStatus{engine.QueuedSucceeded, engine.QueuedCanceled, engine.QueuedSucceeded, engine.QueuedSucceeded} {
		if q := endOf(t, h, id, calls[i]); q.Status != want || want == engine.QueuedSucceeded && q.Result.Status != 209 {
			t.Errorf("call %d: %+v", i, q)
		}
	}
	var names []string
	for _, m := range d.Methods() {
		names = append(names, m.Name)
	}
	if !slices.Equal(names, []string{"a", "c", "d"}) {
		t.Errorf("sent %v", names)
	}
	audit, _, err := h.Audit(t.Context(), enginetest.Owner(), 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range audit { // the newest entries: of what the device answered
		if e.Operation != "method.invoke" || e.Principal != enginetest.Owner().Principal.String() || e.Cause != "queue" {
			t.Errorf("the audit says %+v", e)
		}
	}
	list, next, err := h.QueuedMethods(t.Context(), enginetest.Owner(), id, engine.QueuedSucceeded, "", 2)
	if err != nil || len(list) != 2 || next == "" {
		t.Fatalf("list: %d calls, next %q, %v", len(list), next, err)
	}
	list, next, err = h.QueuedMethods(t.Context(), enginetest.Owner(), id, engine.QueuedSucceeded, next, 2)
	if err != nil || len(list) != 1 || next != "" || list[0].Name != "d" {
		t.Errorf("second page: %+v, next %q, %v", list, next, err)
	}
}

func TestQueuedMethodOfALostSessionIsUncertainAndNeverRepeated(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "pump", ModuleID: "m"}
	d := enginetest.Connect(t, h, id, engine.EndpointMethod)
	q := queueMethod(t, h, id, "open")
	d.Await(t, "the call", func() bool { return len(d.Methods()) == 1 })
	d.Session.Close(errors.New("cable pulled"))
	if q := endOf(t, h, id, q.ID); q.Status != engine.QueuedUncertain || q.Attempt != 1 {
		t.Errorf("after the loss: %+v", q)
	}
	again := enginetest.Connect(t, h, id, engine.EndpointMethod)
	again.Answer(func(enginetest.Method) (int, []byte) { return 200, nil })
	if q := endOf(t, h, id, queueMethod(t, h, id, "next").ID); q.Status != engine.QueuedSucceeded {
		t.Errorf("the next call: %+v", q)
	}
	if m := again.Methods(); len(m) != 1 || m[0].Name != "next" {
		t.Errorf("sent to the new session: %+v", m)
	}
}

// A copy of the data directory while a call is on the wire is what a kill at
// that moment leaves behind.
func TestQueuedMethodOnTheWireAtACrashIsUncertain(t *testing.T) {
	dir, crashed := t.TempDir(), t.TempDir()
	h := enginetest.New(t, enginetest.Dir(dir))
	id := engine.TwinID{DeviceID: "pump"}
	d := enginetest.Connect(t, h, id, engine.EndpointMethod)
	sent := queueMethod(t, h, id, "open")
	waiting := queueMethod(t, h, id, "close")
	d.Await(t, "the call", func() bool { return len(d.Methods()) == 1 })
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	after := enginetest.New(t, enginetest.Dir(crashed))
	if q := endOf(t, after, id, sent.ID); q.Status != engine.QueuedUncertain || q.Sent.IsZero() {
		t.Errorf("the call on the wire: %+v", q)
	}
	again := enginetest.Connect(t, after, id, engine.EndpointMethod)
	again.Await(t, "the other call", func() bool { return len(again.Methods()) == 1 })
	if m := again.Methods(); m[0].Name != "close" {
		t.Errorf("after the crash %q was sent", m[0].Name)
	}
	again.Session.CompleteMethod(again.Methods()[0].RequestID, 200, nil)
	if q := endOf(t, after, id, waiting.ID); q.Status != engine.QueuedSucceeded {
		t.Errorf("the call that waited: %+v", q)
	}
}

func TestQueuedMethodsAreBoundedAndGoWithTheirIdentity(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "pump"}
	if _, err := enginetest.Identity(t, h, id); err != nil {
		t.Fatal(err)
	}
	var last engine.QueuedMethod
	for range h.Limits().QueuedPerDevice {
		last = queueMethod(t, h, id, "a")
	}
	_, err := h.QueueMethod(t.Context(), enginetest.Owner(), id, engine.MethodCall{Name: "a"}, time.Hour)
	wantCode(t, err, engine.CodeTooManyMethods)
	for _, wait := range []time.Duration{0, time.Second, 31 * 24 * time.Hour} {
		_, err := h.QueueMethod(t.Context(), enginetest.Owner(), id, engine.MethodCall{Name: "a"}, wait)
		wantCode(t, err, engine.CodeArgumentInvalid)
	}
	if err := h.DeleteIdentity(t.Context(), enginetest.Owner(), id, engine.IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := enginetest.Identity(t, h, id); err != nil {
		t.Fatal(err)
	}
	_, err = h.QueuedMethod(t.Context(), enginetest.Owner(), id, last.ID)
	wantCode(t, err, engine.CodeMethodCallNotFound)
	queueMethod(t, h, id, "fresh")
}

// TestQueuedMethodWaitEndsWithTheHub: who waits for a call does not hold up a
// shutdown; the call stays.
func TestQueuedMethodWaitEndsWithTheHub(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "d"}
	if _, err := enginetest.Identity(t, h, id); err != nil {
		t.Fatal(err)
	}
	call := queueMethod(t, h, id, "m")
	ended := make(chan error, 1)
	go func() {
		_, err := h.WaitQueuedMethod(t.Context(), enginetest.Owner(), id, call.ID, time.Hour)
		ended <- err
	}()
	h.Drain()
	wantCode(t, <-ended, engine.CodeClosed)
	if q, err := h.QueuedMethod(t.Context(), enginetest.Owner(), id, call.ID); err != nil || q.Status.Final() {
		t.Errorf("the call is %s, %v", q.Status, err)
	}
}

// TestQueuedMethodFullOfMarkup: what is within the limits is stored whatever it
// is made of, also the answer; one that could not be would block the queue.
func TestQueuedMethodFullOfMarkup(t *testing.T) {
	h := enginetest.New(t)
	id := engine.TwinID{DeviceID: "d"}
	markup := []byte(`"` + strings.Repeat("<", h.Limits().MethodPayloadBytes-2) + `"`)
	d := enginetest.Connect(t, h, id, engine.EndpointMethod)
	d.Answer(func(enginetest.Method) (int, []byte) { return 200, markup })
	q, err := h.QueueMethod(t.Context(), enginetest.Owner(), id, engine.MethodCall{Name: "m", Payload: markup}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	q, err = h.WaitQueuedMethod(t.Context(), enginetest.Owner(), id, q.ID, 10*time.Second)
	if err != nil || q.Status != engine.QueuedSucceeded || string(q.Result.Payload) != string(markup) {
		t.Errorf("the call is %s %s, %v", q.Status, q.Message, err)
	}
}
