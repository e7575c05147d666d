// Package clienttest starts whole hubs in the test's process, with real
// listeners on free ports, for the tests of what talks to a hub.
package clienttest

import (
	"context"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/protocols"
	"github.com/muster-hub/muster/protocols/client"
)

// Hub is a running hub.
type Hub struct {
	Engine  *engine.Hub
	Dir     string // data directory with the socket and the CA
	HTTPS   string // HOST:PORT
	MQTTS   string
	RootCAs *x509.CertPool
	Service *client.Service // over the unix socket
}

// Start runs a hub until the test ends.
func Start(tb testing.TB, options ...enginetest.Option) *Hub {
	tb.Helper()
	dir, err := os.MkdirTemp("", "muster") // a socket's path must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &Hub{Dir: dir}
	h.Engine = enginetest.New(tb, append([]enginetest.Option{enginetest.Dir(dir)}, options...)...)
	server, err := protocols.Listen(tb.Context(), h.Engine, protocols.Options{
		DataDir: dir, Hosts: h.Engine.Hosts(), HTTPS: []string{"127.0.0.1:0"}, MQTTS: []string{"127.0.0.1:0"},
		GraceTime: time.Second,
	})
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}
	for _, l := range server.Listeners() {
		switch l.Kind {
		case "https":
			h.HTTPS = l.Address
		case "mqtts":
			h.MQTTS = l.Address
		}
	}
	ca, _ := server.Authority()
	pem, err := os.ReadFile(ca)
	if err != nil {
		tb.Fatal(err)
	}
	h.RootCAs = x509.NewCertPool()
	if !h.RootCAs.AppendCertsFromPEM(pem) {
		tb.Fatalf("%s holds no certificate", ca)
	}
	h.Service, err = client.NewService(client.ServiceOptions{Socket: dir + "/muster.sock"})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	served, worked := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	go func() { worked <- h.Engine.Run(ctx) }()
	tb.Cleanup(func() {
		h.Service.Close()
		stop()
		if err := <-served; err != nil {
			tb.Errorf("serve: %v", err)
		}
		<-worked
	})
	return h
}
