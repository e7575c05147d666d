package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine/auth"
)

// queryHub asks a hub through REST, over connections that are kept open.
type queryHub struct {
	hub    *hub
	client *http.Client
	token  string
}

func newQueryHub(h *hub, connections int) (*queryHub, error) {
	key, err := h.key.SharedAccessKey.Bytes()
	if err != nil {
		return nil, err
	}
	return &queryHub{
		hub:    h,
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections}},
		token:  auth.SignToken(hostName, key, h.key.SharedAccessKeyName, time.Now().Add(24*time.Hour)),
	}, nil
}

func (q *queryHub) name() string        { return engineMuster }
func (q *queryHub) text(t texts) string { return t.muster }
func (q *queryHub) close()              { q.client.CloseIdleConnections() }

func (q *queryHub) post(ctx context.Context, path string, body any) ([]byte, error) {
	return q.call(ctx, http.MethodPost, path, body)
}

// call sends a request, with body as JSON unless it is nil, and returns the
// answer of one that the hub took.
func (q *queryHub) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+q.hub.https+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	req.Host = hostName
	req.Header.Set("Authorization", q.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("x-ms-max-item-count", "100")
	resp, err := q.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s was answered with %d: %s", method, path, resp.StatusCode, answer)
	}
	return answer, err
}

func (q *queryHub) ask(ctx context.Context, list []string) ([]time.Duration, []string, error) {
	var times []time.Duration
	var first []string
	for i, text := range list {
		began := time.Now()
		answer, err := q.post(ctx, "/devices/query?api-version=2021-04-12", map[string]string{"query": text})
		times = append(times, time.Since(began))
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			if first, err = rowsOf(answer); err != nil {
				return nil, nil, err
			}
		}
	}
	return times, first, nil
}

// rowsOf returns an array of objects as lines: the id of a twin, else the
// values of a row.
func rowsOf(answer []byte) ([]string, error) {
	var rows []json.RawMessage
	if err := json.Unmarshal(answer, &rows); err != nil {
		return nil, err
	}
	var lines []string
	for _, row := range rows {
		var twin struct{ DeviceID string }
		if err := json.Unmarshal(row, &twin); err != nil {
			return nil, err
		}
		if twin.DeviceID != "" {
			lines = append(lines, twin.DeviceID)
			continue
		}
		var values []string
		d := json.NewDecoder(bytes.NewReader(row))
		d.UseNumber()        // a million is not 1e+06
		for i := -1; ; i++ { // "{", a name, a value, a name, a value, "}"
			t, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			if i >= 0 && i%2 == 1 {
				values = append(values, fmt.Sprint(t))
			}
		}
		lines = append(lines, strings.Join(values, "|"))
	}
	slices.Sort(lines)
	return lines, nil
}

func (q *queryHub) explain(ctx context.Context, text string) (string, error) {
	answer, err := q.post(ctx, "/api/v1/query", map[string]any{"query": text, "explain": true, "limit": 100})
	if err != nil {
		return "", err
	}
	var page struct{ PlanText string }
	if err := json.Unmarshal(answer, &page); err != nil {
		return "", err
	}
	if page.PlanText == "" {
		return "", errors.New("the hub gave no plan")
	}
	return page.PlanText, nil
}
