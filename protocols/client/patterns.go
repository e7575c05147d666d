package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strings"
)

// Pattern is an installed version of a pattern. Versions of a name lie side by
// side; Default is the one that runs when none is named.
type Pattern struct {
	Name      string          `json:"name"`
	Version   string          `json:"version"`
	Title     string          `json:"title,omitempty"`
	Summary   string          `json:"summary,omitempty"`
	Manifest  json.RawMessage `json:"manifest"`   // all that the pattern declares
	Schema    json.RawMessage `json:"parameters"` // JSON Schema of the parameters
	Hash      string          `json:"hash"`       // of its files
	Origin    string          `json:"origin"`     // shipped, signed or unsigned
	Signer    string          `json:"signer,omitempty"`
	Needs     []PatternNeed   `json:"needs"`
	Enabled   bool            `json:"enabled"`
	Default   bool            `json:"default"`
	Missing   []string        `json:"missing,omitempty"` // parts of the hub without which it can't be enabled
	Active    int64           `json:"active"`            // runs that have not ended
	Principal string          `json:"principal,omitempty"`
	Installed Time            `json:"installedTime,omitzero"` // zero: it is only inspected
	ETag      string          `json:"etag,omitempty"`
	Cost      PatternCost     `json:"cost"`

	Raw json.RawMessage `json:"-"` // as it came
}

// UnmarshalJSON keeps what came, too.
func (p *Pattern) UnmarshalJSON(data []byte) error {
	type plain Pattern
	if err := json.Unmarshal(data, (*plain)(p)); err != nil {
		return err
	}
	p.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// PatternNeed is a capability that a pattern needs.
type PatternNeed struct {
	Need    string `json:"need"` // method:reboot
	Text    string `json:"text"` // in words
	Granted bool   `json:"granted"`
	Missing string `json:"missing,omitempty"` // the part of the hub that is not here
}

// PatternCost is what the runs of a version took since the start of the hub.
type PatternCost struct {
	Runs         int64            `json:"runs"` // that ended
	Ended        map[string]int64 `json:"ended,omitempty"`
	Activations  int64            `json:"activations"`
	Instructions int64            `json:"instructions"`
	Calls        int64            `json:"calls"`
	Journal      int64            `json:"journalBytes"`
	Seconds      float64          `json:"seconds"` // in workers
	Slowest      float64          `json:"slowestSeconds"`
	SlowestRun   string           `json:"slowestRun,omitempty"`

	Hot []PatternLine `json:"hot,omitempty"` // of slow activations, sampled; the hottest first
}

// PatternLine is how many instructions a line of a pattern ran, about.
type PatternLine struct {
	Line         string `json:"line"` // pattern.lua:44
	Instructions int64  `json:"instructions"`
}

// PatternInstall says how a pattern is installed.
type PatternInstall struct {
	Archive  []byte   // .tar.gz or .zip of its folder, or its one .lua file
	Unsigned bool     // it may be without a signature that the hub trusts
	Grant    []string // what it may do: all that it needs, or it is refused; "all" is all of it
	Disabled bool     // it is not enabled
}

func patternPath(name string) string { return "/api/v1/patterns/" + url.PathEscape(name) }

func versionQuery(version string) url.Values {
	q := url.Values{}
	if version != "" {
		q.Set("version", version)
	}
	return q
}

// Patterns lists the installed versions of all patterns by name, the newest
// version first.
func (s *Service) Patterns(ctx context.Context) iter.Seq2[Pattern, error] {
	return pages[Pattern](ctx, s, "/api/v1/patterns", nil, 100)
}

// Pattern returns a pattern; version is empty for the default one.
func (s *Service) Pattern(ctx context.Context, name, version string) (p Pattern, err error) {
	err = s.Do(ctx, Request{Method: http.MethodGet, Path: patternPath(name), Query: versionQuery(version)}, &p)
	return p, err
}

// PatternFile is a file of an installed pattern.
type PatternFile struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

// PatternFiles returns the files of a pattern by path.
func (s *Service) PatternFiles(ctx context.Context, name, version string) ([]PatternFile, error) {
	var p page[PatternFile]
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: patternPath(name) + "/files", Query: versionQuery(version)}, &p)
	return p.Items, err
}

// InspectPattern says what a pattern declares and needs; nothing is installed.
func (s *Service) InspectPattern(ctx context.Context, i PatternInstall) (Pattern, error) {
	return s.installPattern(ctx, i, true)
}

// InstallPattern installs a pattern, beside other versions of it.
func (s *Service) InstallPattern(ctx context.Context, i PatternInstall) (Pattern, error) {
	return s.installPattern(ctx, i, false)
}

func (s *Service) installPattern(ctx context.Context, i PatternInstall, inspect bool) (p Pattern, err error) {
	q := url.Values{}
	for name, on := range map[string]bool{"unsigned": i.Unsigned, "disabled": i.Disabled, "inspect": inspect} {
		if on {
			q.Set(name, "true")
		}
	}
	if len(i.Grant) > 0 {
		q.Set("grant", strings.Join(i.Grant, ","))
	}
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: "/api/v1/patterns", Query: q, Body: i.Archive, Key: rand.Text()}, &p)
	return p, err
}

func (s *Service) controlPattern(ctx context.Context, name, version, operation, etag string) (p Pattern, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPost, Path: patternPath(name) + "/" + operation, Query: versionQuery(version), IfMatch: etag}, &p)
	return p, err
}

// EnablePattern lets a pattern run; version is empty for the default one and
// etag for whichever it has, here and in what follows.
func (s *Service) EnablePattern(ctx context.Context, name, version, etag string) (Pattern, error) {
	return s.controlPattern(ctx, name, version, "enable", etag)
}

// DisablePattern lets nothing start a pattern any more; its runs go on.
func (s *Service) DisablePattern(ctx context.Context, name, version, etag string) (Pattern, error) {
	return s.controlPattern(ctx, name, version, "disable", etag)
}

// DefaultPattern makes a version the one that runs when none is named.
func (s *Service) DefaultPattern(ctx context.Context, name, version, etag string) (Pattern, error) {
	return s.controlPattern(ctx, name, version, "default", etag)
}

// RemovePattern removes a version of which no run is under way.
func (s *Service) RemovePattern(ctx context.Context, name, version, etag string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: patternPath(name), Query: versionQuery(version), IfMatch: etag}, nil)
}

// RunCount counts runs that stand at the same place.
type RunCount struct {
	Pattern string `json:"pattern"`
	Version string `json:"version"`
	State   string `json:"state"`
	Phase   string `json:"phase,omitempty"`
	Step    string `json:"step,omitempty"` // the operation that they wait for; connect: the device, to be called
	Count   int64  `json:"count"`
}

// RunCounts counts runs by where they stand.
func (s *Service) RunCounts(ctx context.Context, f RunFilter) ([]RunCount, error) {
	var p page[RunCount]
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/runs/counts", Query: f.values()}, &p)
	return p.Items, err
}

// TrustedKey is an ed25519 key whose signatures on patterns a hub trusts.
type TrustedKey struct {
	Name    string `json:"name"`
	Key     string `json:"key"` // base64
	Created Time   `json:"createdTime"`
}

func patternKeyPath(name string) string { return "/api/v1/pattern-keys/" + url.PathEscape(name) }

// TrustedKeys lists the keys that a hub trusts, by name.
func (s *Service) TrustedKeys(ctx context.Context) ([]TrustedKey, error) {
	var p page[TrustedKey]
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/pattern-keys"}, &p)
	return p.Items, err
}

// TrustKey has a hub trust a key: 32 bytes, base64.
func (s *Service) TrustKey(ctx context.Context, name, key string) (k TrustedKey, err error) {
	err = s.Do(ctx, Request{Method: http.MethodPut, Path: patternKeyPath(name), Body: map[string]string{"key": key}}, &k)
	return k, err
}

// DistrustKey takes the trust back; what was installed stays.
func (s *Service) DistrustKey(ctx context.Context, name string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: patternKeyPath(name)}, nil)
}

// PatternSecret is a secret that patterns may use; nobody can read it.
type PatternSecret struct {
	Name    string `json:"name"`
	Updated Time   `json:"updatedTime"`
	By      string `json:"principal"`
}

func patternSecretPath(name string) string {
	return "/api/v1/pattern-secrets/" + url.PathEscape(name)
}

// PatternSecrets lists the secrets by name.
func (s *Service) PatternSecrets(ctx context.Context) ([]PatternSecret, error) {
	var p page[PatternSecret]
	err := s.Do(ctx, Request{Method: http.MethodGet, Path: "/api/v1/pattern-secrets"}, &p)
	return p.Items, err
}

// SetPatternSecret makes a secret, or gives it another value.
func (s *Service) SetPatternSecret(ctx context.Context, name, value string) error {
	return s.Do(ctx, Request{Method: http.MethodPut, Path: patternSecretPath(name), Body: map[string]string{"value": value}}, nil)
}

// DeletePatternSecret deletes a secret.
func (s *Service) DeletePatternSecret(ctx context.Context, name string) error {
	return s.Do(ctx, Request{Method: http.MethodDelete, Path: patternSecretPath(name)}, nil)
}
