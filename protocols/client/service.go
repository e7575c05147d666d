// Package client is a Go client of a hub's two wires. Service speaks REST,
// IoT Hub's paths and Muster's own, as an application or a person does; Device
// speaks MQTT over TLS or WebSocket, as a device does. The command line, the
// simulator and tests are built on it.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/muster-hub/muster/engine/auth"
)

const (
	apiVersion       = "2021-04-12"
	maxAnswerBytes   = 64 << 20
	tokenLifetime    = time.Hour
	tokenRenewBefore = 10 * time.Minute
)

// ServiceOptions say how to reach a hub: by the unix socket of its data
// directory, or by a policy's connection string over https.
type ServiceOptions struct {
	Socket           string                // path of the unix socket; takes precedence
	ConnectionString auth.ConnectionString // of a shared access policy
	Port             int                   // of https; 0 = 443
	RootCAs          *x509.CertPool        // nil = the system's
	UserAgent        string
	Held             func(why string) // told that a hub, which is paused, holds back what it was given; nil = nobody is
}

// Service is a client of a hub's REST. It is safe for concurrent use.
type Service struct {
	http      *http.Client
	base      string // "https://host:port" without a slash at the end
	target    string // for people
	userAgent string
	policy    *auth.ConnectionString // nil over the socket
	held      func(why string)

	mu    sync.Mutex
	token string
	until time.Time
}

// NewService checks the options; it does not connect yet.
func NewService(o ServiceOptions) (*Service, error) {
	t := &http.Transport{
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 0, // a direct method may wait ten minutes; the context bounds it
	}
	s := &Service{http: &http.Client{Transport: t}, userAgent: firstOf(o.UserAgent, "muster"), held: o.Held}
	if o.Socket != "" {
		s.base, s.target = "http://muster", o.Socket
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", o.Socket)
		}
		return s, nil
	}
	c := o.ConnectionString
	if c.HostName == "" || c.SharedAccessKeyName == "" || c.SharedAccessKey == "" {
		return nil, errors.New("the connection string is not a shared access policy's: expected HostName, SharedAccessKeyName and SharedAccessKey")
	}
	port := o.Port
	if port == 0 {
		port = 443
	}
	host := c.HostName
	if !strings.Contains(host, ":") || net.ParseIP(host) != nil {
		host = net.JoinHostPort(host, strconv.Itoa(port))
	}
	s.base, s.target, s.policy = "https://"+host, "https://"+host, &c
	t.TLSClientConfig = &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
	t.ForceAttemptHTTP2 = true
	return s, nil
}

// Target says where the client connects to, for people.
func (s *Service) Target() string { return s.target }

// Close drops idle connections.
func (s *Service) Close() { s.http.CloseIdleConnections() }

// Request is one call. Path is escaped already and begins with a slash.
type Request struct {
	Method  string
	Path    string
	Query   url.Values
	IfMatch string // an ETag with or without quotes, or *; empty = no header
	Key     string // Idempotency-Key for Muster's POSTs
	Body    any    // nil, []byte, json.RawMessage, or a value to encode as JSON
}

// Do sends a request and decodes a 2xx answer into out unless out is nil or
// the answer is empty; a *json.RawMessage gets the bytes as they came. Other
// answers are an *Error, a failure to reach the hub a *ConnectError.
func (s *Service) Do(ctx context.Context, r Request, out any) error {
	body, err := s.exchange(ctx, r)
	if err != nil || out == nil || len(body) == 0 {
		return err
	}
	if raw, ok := out.(*json.RawMessage); ok {
		*raw = body
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read the hub's answer to %s %s: %w", r.Method, r.Path, err)
	}
	return nil
}

func (s *Service) exchange(ctx context.Context, r Request) ([]byte, error) {
	req, err := s.request(ctx, r)
	if err != nil {
		return nil, err
	}
	res, err := s.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Method, r.Path, cause)
		}
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, &ConnectError{Target: s.target, Err: err}
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or given up with the connection
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, &ConnectError{Target: s.target, Err: fmt.Errorf("read the answer: %w", err)}
	}
	if len(body) > maxAnswerBytes {
		return nil, fmt.Errorf("the hub's answer to %s %s is over %d MiB; ask for fewer records", r.Method, r.Path, maxAnswerBytes>>20)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		e := parseError(res.StatusCode, res.Header, body)
		// A bulk request answers 400 with a result: hand both out.
		if strings.EqualFold(res.Header.Get("Iothuberrorcode"), "BulkRegistryOperationFailure") {
			return body, e
		}
		return nil, e
	}
	if why := res.Header.Get("Muster-Held"); why != "" && s.held != nil {
		s.held(why)
	}
	return body, nil
}

func (s *Service) request(ctx context.Context, r Request) (*http.Request, error) {
	var body io.Reader
	switch b := r.Body.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(b)
	case json.RawMessage:
		body = bytes.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode the request %s %s: %w", r.Method, r.Path, err)
		}
		body = bytes.NewReader(data)
	}
	target := s.base + r.Path
	q := r.Query
	if !strings.HasPrefix(r.Path, "/api/") {
		if q == nil {
			q = url.Values{}
		}
		q.Set("api-version", apiVersion)
	}
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, body)
	if err != nil {
		return nil, fmt.Errorf("make the request %s %s: %w", r.Method, r.Path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", s.userAgent)
	if r.IfMatch != "" {
		req.Header.Set("If-Match", quoteETag(r.IfMatch))
	}
	if r.Key != "" {
		req.Header.Set("Idempotency-Key", r.Key)
	}
	token, err := s.authorization(time.Now())
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	return req, nil
}

// authorization returns a token that is valid for at least ten minutes, made
// anew only when the last one runs out.
func (s *Service) authorization(now time.Time) (string, error) {
	if s.policy == nil {
		return "", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.until) {
		return s.token, nil
	}
	key, err := s.policy.SharedAccessKey.Bytes()
	if err != nil {
		return "", err
	}
	s.token = auth.SignToken(s.policy.HostName, key, s.policy.SharedAccessKeyName, now.Add(tokenLifetime))
	s.until = now.Add(tokenLifetime - tokenRenewBefore)
	return s.token, nil
}

func quoteETag(e string) string {
	e = strings.TrimPrefix(e, "W/")
	if e == "*" || strings.HasPrefix(e, `"`) {
		return e
	}
	return `"` + e + `"`
}

// identityPath is the escaped path of a device's or module's identity below
// root, "/devices" or "/twins".
func identityPath(root, deviceID, moduleID string) string {
	p := root + "/" + url.PathEscape(deviceID)
	if moduleID != "" {
		p += "/modules/" + url.PathEscape(moduleID)
	}
	return p
}
