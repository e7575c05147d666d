package client_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/protocols/client"
	"github.com/muster-hub/muster/protocols/client/clienttest"
)

// errSeen ends a stream.
var errSeen = errors.New("seen")

// followed follows a run until it is in a state.
func followed(t *testing.T, ctx context.Context, s *client.Service, id, state string) client.Run {
	t.Helper()
	var last client.RunEvent
	_, err := s.FollowRun(ctx, id, "", func(e client.RunEvent) error {
		if last = e; e.State == state {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) || last.Cursor == "" || last.At.IsZero() || (last.Kind == "ended") != last.Final {
		t.Fatalf("%v %+v", err, last)
	}
	return last.Run
}

// TestPatternsAndRuns goes the whole way through a client: install, run, answer,
// look, take back, try again.
func TestPatternsAndRuns(t *testing.T) {
	scripts := enginetest.NewScripts(enginetest.Script{
		Manifest: pattern.Manifest{Name: "ask", Needs: pattern.Needs{"twin:tags"}, Resumable: true, Params: json.RawMessage(`{"why":{"type":"string","default":"just so"}}`)},
		Run: func(p *enginetest.Play) (any, error) {
			if err := p.Tag(`{"asked":true}`); err != nil {
				return nil, err
			}
			by, err := p.Approve("Go on?")
			return map[string]json.RawMessage{"by": by}, err
		},
		Undo: func(p *enginetest.Play) (any, error) { return nil, p.Tag(`{"asked":null}`) },
	})
	h := clienttest.Start(t, enginetest.WithScripts(scripts))
	s := h.Service
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	public, private, err := pattern.GenerateKey(rand.Reader)
	must(err)
	bundle := scripts.Bundle("ask", "1.0.0")
	signature, err := pattern.Sign(bundle, private)
	must(err)
	archive, err := pattern.WriteArchive(bundle, signature)
	must(err)
	if _, err := s.InstallPattern(ctx, client.PatternInstall{Archive: archive, Grant: []string{"all"}}); !client.HasCode(err, "PatternUnsigned") {
		t.Errorf("nobody trusts the key: %v", err)
	}
	key, err := s.TrustKey(ctx, "acme", public)
	must(err)
	if keys, err := s.TrustedKeys(ctx); err != nil || len(keys) != 1 || keys[0] != key {
		t.Errorf("%v %v", keys, err)
	}
	seen, err := s.InspectPattern(ctx, client.PatternInstall{Archive: archive})
	must(err)
	if seen.Signer != "acme" || len(seen.Needs) != 1 || seen.Needs[0].Granted || !seen.Installed.IsZero() {
		t.Errorf("%+v", seen)
	}
	made, err := s.InstallPattern(ctx, client.PatternInstall{Archive: archive, Grant: []string{"twin:tags"}})
	must(err)
	for p, err := range s.Patterns(ctx) {
		if err != nil || p.Name != "ask" || p.ETag != made.ETag || !p.Enabled || !p.Default || p.Origin != "signed" {
			t.Errorf("%v %+v", err, p)
		}
	}
	if files, err := s.PatternFiles(ctx, "ask", ""); err != nil || len(files) != 1 || files[0].Content != string(bundle.Files["pattern.lua"]) {
		t.Errorf("%v %v", files, err)
	}
	must(s.SetPatternSecret(ctx, "smtp", "hush"))
	if list, err := s.PatternSecrets(ctx); err != nil || len(list) != 1 || list[0].Name != "smtp" {
		t.Errorf("%v %v", list, err)
	}
	must(s.DeletePatternSecret(ctx, "smtp"))
	must(s.DistrustKey(ctx, "acme"))

	for _, id := range []string{"d1", "d2"} {
		_, err := s.CreateIdentity(ctx, client.Identity{DeviceID: id})
		must(err)
	}
	first, err := s.StartRun(ctx, client.RunSpec{Pattern: "ask", DeviceID: "d1"}, "k1")
	must(err)
	if again, err := s.StartRun(ctx, client.RunSpec{Pattern: "ask", DeviceID: "d1"}, "k1"); err != nil || again.ID != first.ID {
		t.Errorf("the same key: %+v %v", again, err)
	}
	second, err := s.StartRun(ctx, client.RunSpec{Pattern: "ask", DeviceID: "d2", Params: json.RawMessage(`{"why":"x"}`)}, "k2")
	must(err)
	for _, r := range []client.Run{first, second} {
		if now := followed(t, ctx, s, r.ID, "waiting"); now.Question != "Go on?" || now.Steps != 2 {
			t.Errorf("%+v", now)
		}
	}
	var found []string
	for r, err := range s.Runs(ctx, client.RunFilter{Asks: true}) {
		must(err)
		found = append(found, r.Target()+" "+string(r.Params))
	}
	if strings.Join(found, ", ") != `d2 {"why":"x"}, d1 {"why":"just so"}` {
		t.Errorf("%v", found)
	}
	counts, err := s.RunCounts(ctx, client.RunFilter{Pattern: "ask"})
	if err != nil || len(counts) != 1 || counts[0] != (client.RunCount{Pattern: "ask", Version: "1.0.0", State: "waiting", Step: "ctx.approve", Count: 2}) {
		t.Errorf("%v %v", counts, err)
	}
	var out bytes.Buffer
	must(s.ExportRuns(ctx, client.RunFilter{DeviceID: "d1"}, "csv", &out))
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], first.ID) {
		t.Errorf("%q", lines)
	}

	if r, err := s.DecideRun(ctx, first.ID, true, "fine"); err != nil || r.ID != first.ID {
		t.Errorf("%+v %v", r, err)
	}
	followed(t, ctx, s, first.ID, "succeeded")
	if n, err := s.DecideRuns(ctx, client.RunFilter{Pattern: "ask", Asks: true}, false, "no"); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	if r := followed(t, ctx, s, second.ID, "failed"); r.Fault == nil || r.Fault.Code != "rejected" {
		t.Errorf("%+v", r.Fault)
	}
	trace, err := s.RunTrace(ctx, first.ID)
	if err != nil || len(trace.Steps) != 2 || trace.Steps[1].Op != "ctx.approve" || trace.Steps[1].State != "done" || trace.State != "succeeded" || trace.Run.Steps != 2 || len(trace.Raw) == 0 {
		t.Errorf("%v %+v", err, trace)
	}
	_, err = s.UndoRun(ctx, first.ID)
	must(err)
	followed(t, ctx, s, first.ID, "undone")
	retried, err := s.RetryRun(ctx, second.ID, 2, "")
	must(err)
	if retried.Of != second.ID || retried.Attempt != 2 {
		t.Errorf("%+v", retried)
	}
	followed(t, ctx, s, retried.ID, "waiting")
	if n, err := s.CancelRuns(ctx, client.RunFilter{DeviceID: "d2"}, client.CancelRunOptions{Reason: "enough"}); err != nil || n != 1 {
		t.Errorf("%d %v", n, err)
	}
	followed(t, ctx, s, retried.ID, "canceled")
	if _, err := s.CancelRun(ctx, retried.ID, client.CancelRunOptions{Now: true}); !client.HasCode(err, "RunState") {
		t.Errorf("one that has ended: %v", err)
	}
	if p, err := s.DisablePattern(ctx, "ask", "", made.ETag); err != nil || p.Enabled || p.Cost.Runs == 0 {
		t.Errorf("%+v %v", p, err)
	}
	_, err = s.EnablePattern(ctx, "ask", "1.0.0", "")
	must(err)
	_, err = s.DefaultPattern(ctx, "ask", "1.0.0", "")
	must(err)
	must(s.RemovePattern(ctx, "ask", "1.0.0", ""))
	if _, err := s.Pattern(ctx, "ask", ""); !client.IsNotFound(err) {
		t.Errorf("a removed pattern: %v", err)
	}
}
