package engine_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/engine/enginetest"
	"github.com/muster-hub/muster/engine/pattern"
	"github.com/muster-hub/muster/storage"
)

// idle is a script that waits until it is canceled.
func idle(name, version string) enginetest.Script {
	return enginetest.Script{
		Manifest: pattern.Manifest{Name: name, Version: version, Needs: []pattern.Need{"twin:read"}},
		Run: func(p *enginetest.Play) (any, error) {
			return p.Wait("reported.never == true", nil, "")
		},
	}
}

// install installs a version of a script.
func install(t *testing.T, h *engine.Hub, s *enginetest.Scripts, name, version string) engine.Pattern {
	t.Helper()
	p, err := h.InstallPattern(t.Context(), enginetest.Owner(), engine.PatternInstall{Bundle: s.Bundle(name, version), Unsigned: true, Grant: pattern.Needs{"twin:read"}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPatternVersions(t *testing.T) {
	t.Parallel()
	scripts := enginetest.NewScripts(idle("idle", "1.0.0"), idle("idle", "1.9.0"), idle("idle", "1.10.0"), idle("idle", "2.0.0"))
	f := newRunFixture(t, scripts)
	owner := enginetest.Owner()
	// The fixture installed all of them, in whatever order.
	byDefault := func() string {
		t.Helper()
		p, err := f.Pattern(t.Context(), owner, "idle", "")
		if err != nil {
			t.Fatal(err)
		}
		return p.Manifest.Version
	}
	if got := byDefault(); got != "2.0.0" {
		t.Errorf("the default version is %s", got)
	}
	list, err := f.Patterns(t.Context(), owner)
	if err != nil || len(list) != 4 || list[0].Manifest.Version != "2.0.0" || list[1].Manifest.Version != "1.10.0" || !list[0].Default || list[1].Default {
		t.Errorf("%+v, %v", list, err)
	}
	// An operator's choice stays, whatever is installed.
	before, err := f.Pattern(t.Context(), owner, "idle", "1.9.0")
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := f.DefaultPattern(t.Context(), owner, "idle", "1.9.0", before.ETag)
	if err != nil || !chosen.Default || chosen.ETag == before.ETag {
		t.Fatalf("%+v, %v", chosen, err)
	}
	_, err = f.DisablePattern(t.Context(), owner, "idle", "1.9.0", before.ETag)
	wantCode(t, err, engine.CodePreconditionFailed)
	scripts.Add(idle("idle", "3.0.0"))
	if p := install(t, f.Hub, scripts, "idle", "3.0.0"); p.Default || byDefault() != "1.9.0" {
		t.Errorf("a newer version took the place of the chosen one")
	}
	// Runs stay on theirs, and hold it.
	r := f.start("idle", f.device("d1"), "")
	f.until(r.ID, "its wait", func(r engine.Run) bool { return r.State == pattern.Waiting })
	if r.Version != "1.9.0" {
		t.Errorf("the run is of %s", r.Version)
	}
	if _, err := f.DisablePattern(t.Context(), owner, "idle", "1.9.0", "*"); err != nil {
		t.Fatal(err)
	}
	_, err = f.StartRun(t.Context(), owner, engine.RunSpec{Pattern: "idle", Device: engine.TwinID{DeviceID: "d1"}})
	wantCode(t, err, engine.CodePatternState)
	p, err := f.Pattern(t.Context(), owner, "idle", "")
	if err != nil || p.Active != 1 || p.Enabled {
		t.Errorf("while it drains: %+v, %v", p, err)
	}
	err = f.RemovePattern(t.Context(), owner, "idle", "1.9.0", "")
	wantCode(t, err, engine.CodePatternState)
	if !strings.Contains(err.Error(), "1 run of") {
		t.Errorf("%v", err)
	}
	if _, err := f.CancelRun(t.Context(), owner, r.ID, engine.CancelRunOptions{}); err != nil {
		t.Fatal(err)
	}
	f.state(r.ID, pattern.Canceled)
	if err := f.RemovePattern(t.Context(), owner, "idle", "1.9.0", ""); err != nil {
		t.Fatal(err)
	}
	if got := byDefault(); got != "3.0.0" {
		t.Errorf("after the removal the default version is %s", got)
	}
	_, err = f.PatternBundle(t.Context(), owner, "idle", "1.9.0")
	wantCode(t, err, engine.CodePatternNotFound)
	if got, err := f.ReadRun(t.Context(), owner, r.ID); err != nil || got.Version != "1.9.0" {
		t.Errorf("the run of a version that was removed: %+v, %v", got, err)
	}
	for _, v := range []string{"1.0.0", "1.10.0", "2.0.0", "3.0.0"} {
		if err := f.RemovePattern(t.Context(), owner, "idle", v, ""); err != nil {
			t.Error(v, err)
		}
	}
	_, err = f.Pattern(t.Context(), owner, "idle", "")
	wantCode(t, err, engine.CodePatternNotFound)
}

func TestPatternInstall(t *testing.T) {
	t.Parallel()
	needs := pattern.Needs{"twin:read", "method:reboot", "twin:tags:site"}
	scripts := enginetest.NewScripts(
		enginetest.Script{Manifest: pattern.Manifest{Name: "asks", Needs: needs}, Run: func(*enginetest.Play) (any, error) { return nil, nil }},
		enginetest.Script{Manifest: pattern.Manifest{Name: "later", Needs: pattern.Needs{"alert"}, Triggers: []pattern.Trigger{{Enrolled: true}}}, Run: func(*enginetest.Play) (any, error) { return nil, nil }},
	)
	h := enginetest.New(t, enginetest.WithScripts(scripts))
	owner := enginetest.Owner()
	try := func(p engine.PatternInstall, code engine.Code, parts ...string) {
		t.Helper()
		_, err := h.InstallPattern(t.Context(), owner, p)
		wantCode(t, err, code)
		for _, part := range parts {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%v lacks %q", err, part)
			}
		}
	}
	b := scripts.Bundle("asks", "1.0.0")
	try(engine.PatternInstall{}, engine.CodeArgumentNull)
	try(engine.PatternInstall{Bundle: &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: []byte("x")}}}, engine.CodePatternInvalid, "no such script")
	try(engine.PatternInstall{Bundle: b, Grant: needs}, engine.CodePatternUnsigned)
	try(engine.PatternInstall{Bundle: b, Unsigned: true, Grant: needs[:1]}, engine.CodePatternGrant, "method:reboot", "twin:tags:site")
	weak := owner
	weak.Permissions = auth.ServiceConnect
	_, err := h.InstallPattern(t.Context(), weak, engine.PatternInstall{Bundle: b, Unsigned: true, Grant: needs})
	wantCode(t, err, engine.CodeForbidden)
	seen, err := h.InspectPattern(t.Context(), owner, engine.PatternInstall{Bundle: b})
	if err != nil || seen.Manifest.Name != "asks" || len(seen.Manifest.Needs) != 3 || seen.Origin != engine.PatternUnsigned {
		t.Errorf("%+v, %v", seen, err)
	}
	if list, err := h.Patterns(t.Context(), owner); err != nil || len(list) != 0 {
		t.Errorf("looking has installed %+v, %v", list, err)
	}
	// A wider grant will do.
	p, err := h.InstallPattern(t.Context(), owner, engine.PatternInstall{Bundle: b, Unsigned: true, Grant: pattern.Needs{"twin:read", "method:reboot", "twin:tags"}})
	if err != nil || !p.Enabled || !p.Default || p.Hash != b.Hash() || len(p.Granted) != 3 || p.Principal != owner.Principal.String() {
		t.Fatalf("%+v, %v", p, err)
	}
	again, err := h.InstallPattern(t.Context(), owner, engine.PatternInstall{Bundle: b, Unsigned: true, Grant: needs, Disabled: true})
	if err != nil || again.ETag != p.ETag {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	other := &pattern.Bundle{Files: map[string][]byte{pattern.MainFile: b.Files[pattern.MainFile], "README.md": []byte("changed")}}
	try(engine.PatternInstall{Bundle: other, Unsigned: true, Grant: needs}, engine.CodePatternAlreadyExists)
	got, err := h.PatternBundle(t.Context(), owner, "asks", "")
	if err != nil || !bytes.Equal(got.Files[pattern.MainFile], b.Files[pattern.MainFile]) {
		t.Errorf("%v", err)
	}
	// What is yet to come can lie there.
	p, err = h.InstallPattern(t.Context(), owner, engine.PatternInstall{Bundle: scripts.Bundle("later", "1.0.0"), Unsigned: true, Grant: pattern.Needs{"alert"}})
	if err != nil || p.Enabled || len(p.Missing) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = h.EnablePattern(t.Context(), owner, "later", "", "")
	wantCode(t, err, engine.CodePatternState)
	if err == nil || !strings.Contains(err.Error(), "alerts") || !strings.Contains(err.Error(), "provisioning") {
		t.Errorf("%v", err)
	}
}

func TestPatternSignatures(t *testing.T) {
	t.Parallel()
	public, private, err := pattern.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scripts := enginetest.NewScripts(idle("idle", "1.0.0"), idle("idle", "1.1.0"))
	h := enginetest.New(t, enginetest.WithScripts(scripts))
	owner := enginetest.Owner()
	sign := func(version string) engine.PatternInstall {
		b := scripts.Bundle("idle", version)
		s, err := pattern.Sign(b, private)
		if err != nil {
			t.Fatal(err)
		}
		return engine.PatternInstall{Bundle: b, Signature: s, Grant: pattern.Needs{"twin:read"}}
	}
	_, err = h.InstallPattern(t.Context(), owner, sign("1.0.0"))
	wantCode(t, err, engine.CodePatternUnsigned)
	unsigned := install(t, h, scripts, "idle", "1.0.0")
	if unsigned.Origin != engine.PatternUnsigned {
		t.Errorf("%+v", unsigned)
	}
	_, err = h.TrustKey(t.Context(), owner, "team", "no key")
	wantCode(t, err, engine.CodeArgumentInvalid)
	for range 2 {
		if _, err := h.TrustKey(t.Context(), owner, "team", public); err != nil {
			t.Fatal(err)
		}
	}
	_, err = h.TrustKey(t.Context(), owner, "another", public)
	wantCode(t, err, engine.CodeArgumentInvalid)
	// Where it comes from is known afterwards, too.
	p, err := h.InstallPattern(t.Context(), owner, sign("1.0.0"))
	if err != nil || p.Origin != engine.PatternSigned || p.Signer != "team" {
		t.Errorf("%+v, %v", p, err)
	}
	mixed := sign("1.0.0")
	mixed.Bundle = scripts.Bundle("idle", "1.1.0")
	mixed.Unsigned = true
	_, err = h.InstallPattern(t.Context(), owner, mixed)
	wantCode(t, err, engine.CodePatternInvalid)
	if err := h.DistrustKey(t.Context(), owner, "team"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.DistrustKey(t.Context(), owner, "team"), engine.CodeArgumentInvalid)
	_, err = h.InstallPattern(t.Context(), owner, sign("1.1.0"))
	wantCode(t, err, engine.CodePatternUnsigned)
	if list, err := h.TrustedKeys(t.Context(), owner); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestPatternSecretsAreKept(t *testing.T) {
	t.Parallel()
	h := enginetest.New(t)
	owner := enginetest.Owner()
	for name, value := range map[string]string{"a b": "x", "": "x", "big": strings.Repeat("x", 20000), "bytes": "\xff", "none": ""} {
		if err := h.SetPatternSecret(t.Context(), owner, name, []byte(value)); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	for _, value := range []string{"one", "two"} {
		if err := h.SetPatternSecret(t.Context(), owner, "smtp", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := h.PatternSecrets(t.Context(), owner)
	if err != nil || len(list) != 1 || list[0].Name != "smtp" || list[0].By != owner.Principal.String() {
		t.Errorf("%+v, %v", list, err)
	}
	weak := owner
	weak.Permissions = auth.ServiceConnect
	_, err = h.PatternSecrets(t.Context(), weak)
	wantCode(t, err, engine.CodeForbidden)
	if err := h.DeletePatternSecret(t.Context(), owner, "smtp"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, h.DeletePatternSecret(t.Context(), owner, "smtp"), engine.CodeSecretNotFound)
}

// TestPatternsShipped starts the binary of today and the one of tomorrow on one
// directory.
func TestPatternsShipped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	scripts := enginetest.NewScripts(idle("reboot", "1.0.0"), idle("reboot", "1.1.0"), idle("reset", "1.0.0"), idle("reset", "1.1.0"), idle("gone", "1.0.0"))
	start := func(shipped ...string) *engine.Hub {
		h := enginetest.New(t, enginetest.Dir(dir), enginetest.WithScripts(scripts), func(o *engine.Options) {
			for _, s := range shipped {
				name, version, _ := strings.Cut(s, " ")
				o.Shipped = append(o.Shipped, scripts.Bundle(name, version))
			}
		})
		return h
	}
	owner := enginetest.Owner()
	h := start("reboot 1.0.0", "reset 1.0.0", "gone 1.0.0")
	p, err := h.Pattern(t.Context(), owner, "reboot", "")
	if err != nil || p.Origin != engine.PatternShipped || !p.Enabled || len(p.Granted) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := h.DisablePattern(t.Context(), owner, "reset", "", ""); err != nil {
		t.Fatal(err)
	}
	if err := h.RemovePattern(t.Context(), owner, "gone", "1.0.0", ""); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = start("reboot 1.1.0", "reset 1.1.0", "gone 1.0.0")
	if p, err = h.Pattern(t.Context(), owner, "reboot", ""); err != nil || p.Manifest.Version != "1.1.0" || !p.Enabled {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = h.Pattern(t.Context(), owner, "reboot", "1.0.0"); err != nil || p.Default {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = h.Pattern(t.Context(), owner, "reset", "1.1.0"); err != nil || p.Enabled {
		t.Errorf("what an operator disabled is enabled by a newer version: %+v, %v", p, err)
	}
	_, err = h.Pattern(t.Context(), owner, "gone", "")
	wantCode(t, err, engine.CodePatternNotFound)
	// By its word it comes back.
	if p, err = h.InstallPattern(t.Context(), owner, engine.PatternInstall{Bundle: scripts.Bundle("gone", "1.0.0"), Grant: pattern.Needs{"twin:read"}}); err != nil || p.Origin != engine.PatternShipped {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestPatternsAreBackedUp: a restored hub has its patterns with their files and
// secrets, and starts nothing of them before it is resumed.
func TestPatternsAreBackedUp(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "restored")
	scripts := enginetest.NewScripts(idle("idle", "1.0.0"))
	h := enginetest.New(t, enginetest.Dir(from), enginetest.WithScripts(scripts))
	p := install(t, h, scripts, "idle", "1.0.0")
	if err := h.SetPatternSecret(t.Context(), enginetest.Owner(), "smtp", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	options := storage.Options{Dir: from, Memory: 64 << 20}
	db, err := storage.Open(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	_, err = db.Backup(t.Context(), &backup, storage.BackupOptions{})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	options.MasterKeyFile, options.Dir = filepath.Join(from, "master.key"), to
	if _, err := storage.Restore(t.Context(), &backup, options, nil); err != nil {
		t.Fatal(err)
	}
	scripts.Add(idle("new", "1.0.0"))
	h = enginetest.New(t, enginetest.Dir(to), enginetest.WithScripts(scripts), func(o *engine.Options) {
		o.Storage.MasterKeyFile = options.MasterKeyFile
		o.Shipped = []*pattern.Bundle{scripts.Bundle("new", "1.0.0")}
	})
	got, err := h.Pattern(t.Context(), enginetest.Owner(), "idle", "")
	if err != nil || got.Hash != p.Hash || got.ETag == p.ETag {
		t.Errorf("%+v, %v", got, err)
	}
	if b, err := h.PatternBundle(context.Background(), enginetest.Owner(), "idle", ""); err != nil || b.Hash() != p.Hash {
		t.Errorf("%v", err)
	}
	if list, err := h.Patterns(t.Context(), enginetest.Owner()); err != nil || len(list) != 1 {
		t.Errorf("a restored hub has installed something before it was resumed: %d, %v", len(list), err)
	}
}

// TestInstallsRaceWithRuns starts runs while versions come and go: no run is left
// without its files, and what is counted as under way is exact.
func TestInstallsRaceWithRuns(t *testing.T) {
	t.Parallel()
	scripts := enginetest.NewScripts()
	for _, v := range []string{"1.0.0", "1.1.0"} {
		scripts.Add(enginetest.Script{
			Manifest: pattern.Manifest{Name: "quick", Version: v, Conflicts: pattern.ConflictShare, Needs: pattern.Needs{"twin:read"}},
			Run:      func(p *enginetest.Play) (any, error) { return nil, p.Sleep(time.Millisecond) },
		})
	}
	f := newRunFixture(t, scripts)
	ids := f.fleet(4)
	owner := enginetest.Owner()
	var wg sync.WaitGroup
	var begun, refused atomic.Int64
	for w := range 3 {
		wg.Go(func() {
			for i := range 40 {
				_, err := f.StartRun(t.Context(), owner, engine.RunSpec{Pattern: "quick", Device: ids[(w+i)%len(ids)]})
				switch {
				case err == nil:
					begun.Add(1)
				case engine.AsError(err).Code == engine.CodePatternNotFound || engine.AsError(err).Code == engine.CodePatternState:
					refused.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 30 {
			version := []string{"1.0.0", "1.1.0"}[i%2]
			for _, f := range []func() error{
				func() error { _, err := f.DisablePattern(t.Context(), owner, "quick", version, ""); return err },
				func() error { return f.RemovePattern(t.Context(), owner, "quick", version, "") },
				func() error {
					_, err := f.InstallPattern(t.Context(), owner, engine.PatternInstall{Bundle: scripts.Bundle("quick", version), Unsigned: true, Grant: pattern.Needs{"twin:read"}})
					return err
				},
				func() error { _, err := f.EnablePattern(t.Context(), owner, "quick", version, ""); return err },
			} {
				if err := f(); err != nil && engine.AsError(err).Code != engine.CodePatternState && engine.AsError(err).Code != engine.CodePatternNotFound {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	for end := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		list, _, err := f.Runs(t.Context(), owner, engine.RunFilter{Active: true}, 10, "")
		if err != nil || time.Now().After(end) {
			t.Fatalf("%+v, %v", list, err)
		}
		if len(list) == 0 {
			break
		}
	}
	counts, err := f.RunCounts(t.Context(), owner, engine.RunFilter{Pattern: "quick"})
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for _, c := range counts {
		if c.State != pattern.Succeeded {
			t.Errorf("%+v", c)
		}
		n += c.Count
	}
	if n != begun.Load() {
		t.Errorf("%d runs have succeeded, %d began", n, begun.Load())
	}
	list, err := f.Patterns(t.Context(), owner)
	for _, p := range list {
		if p.Active != 0 {
			t.Errorf("%s: %d are under way", p.Manifest.Version, p.Active)
		}
	}
	t.Logf("%d began, %d were refused, %d versions, %v", begun.Load(), refused.Load(), len(list), err)
}
