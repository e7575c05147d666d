package device

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols/wire"
)

const (
	idleClientsEnv = "MUSTER_TEST_IDLE_CLIENTS" // "address count token"
	idleSessions   = 2000
)

// TestIdleClients is not a test: BenchmarkIdleSession runs it in a second
// process, so that only the hub's side of each connection is measured.
func TestIdleClients(t *testing.T) {
	address, rest, ok := strings.Cut(os.Getenv(idleClientsEnv), " ")
	if !ok {
		t.Skip("only run by BenchmarkIdleSession")
	}
	count, token, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	o := wire.DialOptions{TLS: &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}, Pool: wire.NewBuffers()} //nolint:gosec // the test's own server; the curve that SDKs offer
	next := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range next {
				if err := idleClient(t.Context(), address, fmt.Sprint("d", i), token, o); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	fmt.Println("connected")
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the parent closes it
}

// idleClient connects a device that subscribes, reads its twin and sends a
// message, and then leaves it idle.
func idleClient(ctx context.Context, address, id, token string, o wire.DialOptions) error {
	st, err := wire.DialWebSocket(ctx, "wss://"+address+"/$iothub/websocket", o)
	if err != nil {
		return err
	}
	rd := wire.NewReader(st, o.Pool, 1<<20)
	b, err := wire.AppendConnect(nil, &wire.Connect{ClientID: id, Username: enginetest.HostName + "/" + id + "/?api-version=2021-04-12", Password: token})
	if err != nil {
		return err
	}
	first := len(b)
	b, err1 := wire.AppendSubscribe(b, 1, allFilters()...)
	b, err2 := wire.AppendPublish(b, wire.Message{Topic: "$iothub/twin/GET/?$rid=1"})
	b, err3 := wire.AppendPublish(b, wire.Message{Topic: "devices/" + id + "/messages/events/", Payload: make([]byte, 300), QoS: 1, ID: 2})
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	var p wire.Packet
	for _, part := range []struct {
		b    []byte
		want []wire.Type
	}{{b[:first], []wire.Type{wire.TypeConnack}}, {b[first:], []wire.Type{wire.TypeSuback, wire.TypePublish, wire.TypePuback}}} {
		if _, err := st.Write(part.b); err != nil {
			return err
		}
		for _, want := range part.want {
			if err := rd.ReadPacket(&p); err != nil || p.Type != want || p.Code != 0 {
				return fmt.Errorf("%s: got %s with code %d, %w, want %s", id, p.Type, p.Code, err, want)
			}
		}
	}
	return nil
}

// BenchmarkIdleSession measures what an idle device over WebSocket and TLS
// costs the hub in memory: bytes of heap and stacks after a collection, and of
// the process's resident set. The engine's share is part of it.
func BenchmarkIdleSession(b *testing.B) {
	hub, h := newTestHub(b)
	policy, err := hub.Policy(b.Context(), enginetest.Owner(), "device")
	if err != nil {
		b.Fatal(err)
	}
	key, err := policy.PrimaryKey.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	token := auth.SignToken(enginetest.HostName, key, "device", time.Now().Add(time.Hour))
	for i := range idleSessions {
		if _, err := hub.CreateIdentity(b.Context(), enginetest.Owner(), engine.Identity{DeviceID: fmt.Sprint("d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(h.ServeHTTP))
	server.StartTLS()
	defer server.Close()
	for b.Loop() {
		live, resident := memory(b)
		began := time.Now()
		cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestIdleClients$") //nolint:gosec // this binary
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", idleClientsEnv, server.Listener.Addr(), idleSessions, token))
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			b.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		took := time.Since(began)
		if line != "connected\n" || h.Stats().Sessions != idleSessions {
			b.Fatalf("the clients said %q; sessions: %+v", line, h.Stats())
		}
		live2, resident2 := memory(b)
		b.ReportMetric(float64(live2-live)/idleSessions, "B/session")
		b.ReportMetric(float64(resident2-resident)/idleSessions, "rss-B/session")
		b.ReportMetric(idleSessions/took.Seconds(), "accepts/s")
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			b.Fatal(err)
		}
	}
}

// memory returns the bytes of live heap and stacks, and the resident set.
func memory(b *testing.B) (live, resident int64) {
	b.Helper()
	for range 3 { // stacks shrink by half in a collection
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		fields := strings.Fields(string(status))
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		resident = pages * int64(os.Getpagesize())
	}
	return int64(m.HeapAlloc + m.StackInuse), resident
}
