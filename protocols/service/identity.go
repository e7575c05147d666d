package service

import (
	"errors"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// IoT Hub's texts for enumerations.
const (
	statusEnabled  = "enabled"
	statusDisabled = "disabled"
	connected      = "Connected"
	disconnected   = "Disconnected"
)

// timeLayout has at most seven digits of a second, as IoT Hub's clients expect.
const timeLayout = "2006-01-02T15:04:05.9999999Z"

// identityTime writes a time of an identity. There is no null: C# cannot read
// one. The time that never was has no zone there, as in IoT Hub.
func identityTime(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00"
	}
	return t.UTC().Format(timeLayout)
}

// twinTime writes a time of a twin; the one that never was has a zone there.
func twinTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ticks is a time in whole units of IoT Hub's clock, 100 ns: with at most seven
// digits of a second.
func ticks(t time.Time) time.Time { return t.UTC().Truncate(100 * time.Nanosecond) }

type keyPair struct {
	Primary   *string `json:"primaryKey" doc:"Base64 of 16 to 64 bytes; null unless type is sas."`
	Secondary *string `json:"secondaryKey"`
}

type thumbprints struct {
	Primary   *string `json:"primaryThumbprint" doc:"SHA-1 or SHA-256 in hexadecimal digits; null unless type is selfSigned."`
	Secondary *string `json:"secondaryThumbprint"`
}

type authentication struct {
	SymmetricKey   keyPair     `json:"symmetricKey"`
	X509Thumbprint thumbprints `json:"x509Thumbprint"`
	Type           string      `json:"type" enum:"sas,selfSigned,certificateAuthority,none"`
}

type capabilities struct {
	Edge bool `json:"iotEdge"`
}

// deviceDocument is a device identity as IoT Hub shows it.
type deviceDocument struct {
	DeviceID                   string         `json:"deviceId"`
	GenerationID               string         `json:"generationId" doc:"Differs when a device of the same id was deleted and made again."`
	ETag                       string         `json:"etag" doc:"Without quotes; the ETag header has them."`
	ConnectionState            string         `json:"connectionState" enum:"Connected,Disconnected"`
	Status                     string         `json:"status" enum:"enabled,disabled"`
	StatusReason               *string        `json:"statusReason"`
	ConnectionStateUpdatedTime string         `json:"connectionStateUpdatedTime" doc:"0001-01-01T00:00:00 when never."`
	StatusUpdatedTime          string         `json:"statusUpdatedTime"`
	LastActivityTime           string         `json:"lastActivityTime"`
	CloudToDeviceMessageCount  int            `json:"cloudToDeviceMessageCount"`
	Authentication             authentication `json:"authentication"`
	Capabilities               capabilities   `json:"capabilities"`
	DeviceScope                string         `json:"deviceScope,omitempty"`
	ParentScopes               []string       `json:"parentScopes,omitempty"`
}

// moduleDocument is a module identity as IoT Hub shows it.
type moduleDocument struct {
	ModuleID                   string         `json:"moduleId"`
	ManagedBy                  *string        `json:"managedBy"`
	DeviceID                   string         `json:"deviceId"`
	GenerationID               string         `json:"generationId"`
	ETag                       string         `json:"etag"`
	ConnectionState            string         `json:"connectionState" enum:"Connected,Disconnected"`
	ConnectionStateUpdatedTime string         `json:"connectionStateUpdatedTime"`
	LastActivityTime           string         `json:"lastActivityTime"`
	CloudToDeviceMessageCount  int            `json:"cloudToDeviceMessageCount"`
	Authentication             authentication `json:"authentication"`
}

// identityBody is what a client sends for a device or a module; members that
// it does not name are ignored, also those that the hub sets.
type identityBody struct {
	DeviceID       string              `json:"deviceId,omitempty" doc:"Must equal the path's."`
	ModuleID       string              `json:"moduleId,omitempty" doc:"Must equal the path's."`
	Status         string              `json:"status,omitempty" enum:"enabled,disabled" doc:"Devices only; enabled when absent."`
	StatusReason   *string             `json:"statusReason,omitempty" doc:"Devices only."`
	Authentication *authenticationBody `json:"authentication,omitempty" doc:"Type sas with new keys when absent, also on an update."`
	Capabilities   *capabilities       `json:"capabilities,omitempty" doc:"Devices only."`
	DeviceScope    *string             `json:"deviceScope,omitempty" doc:"Devices only."`
	ParentScopes   []string            `json:"parentScopes,omitempty" doc:"Devices only."`
	ManagedBy      *string             `json:"managedBy,omitempty" doc:"Modules only."`
}

type authenticationBody struct {
	SymmetricKey   *keyPair     `json:"symmetricKey,omitempty" doc:"Both keys or none; empty ones are generated."`
	X509Thumbprint *thumbprints `json:"x509Thumbprint,omitempty"`
	Type           string       `json:"type,omitempty" enum:"sas,selfSigned,certificateAuthority,none"`
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func connectionState(i *engine.Identity) string {
	if i.Connected {
		return connected
	}
	return disconnected
}

func statusText(i *engine.Identity) string {
	if i.Disabled {
		return statusDisabled
	}
	return statusEnabled
}

// showAuthentication always has both objects: the az CLI reads into them
// whatever the type is.
func showAuthentication(a engine.Authentication) authentication {
	d := authentication{Type: string(a.Type)}
	switch a.Type {
	case engine.AuthSAS:
		d.SymmetricKey = keyPair{orNull(a.PrimaryKey.Reveal()), orNull(a.SecondaryKey.Reveal())}
	case engine.AuthSelfSigned:
		d.X509Thumbprint = thumbprints{orNull(a.PrimaryThumbprint), orNull(a.SecondaryThumbprint)}
	case engine.AuthCertificateAuthority, engine.AuthNone:
	}
	return d
}

func showDevice(i engine.Identity) deviceDocument {
	return deviceDocument{
		DeviceID: i.DeviceID, GenerationID: i.GenerationID, ETag: i.ETag,
		ConnectionState: connectionState(&i), Status: statusText(&i), StatusReason: orNull(i.StatusReason),
		ConnectionStateUpdatedTime: identityTime(i.ConnectionUpdated), StatusUpdatedTime: identityTime(i.StatusUpdated),
		LastActivityTime: identityTime(i.LastActivity), CloudToDeviceMessageCount: i.CloudToDeviceMessages,
		Authentication: showAuthentication(i.Authentication), Capabilities: capabilities{i.Edge},
		DeviceScope: i.DeviceScope, ParentScopes: i.ParentScopes,
	}
}

func showModule(i engine.Identity) moduleDocument {
	return moduleDocument{
		ModuleID: i.ModuleID, ManagedBy: orNull(i.ManagedBy), DeviceID: i.DeviceID, GenerationID: i.GenerationID, ETag: i.ETag,
		ConnectionState: connectionState(&i), ConnectionStateUpdatedTime: identityTime(i.ConnectionUpdated),
		LastActivityTime: identityTime(i.LastActivity), CloudToDeviceMessageCount: i.CloudToDeviceMessages,
		Authentication: showAuthentication(i.Authentication),
	}
}

// parseIdentity reads the body of a PUT for the identity that the path names.
func parseIdentity(body []byte, id engine.TwinID) (engine.Identity, error) {
	f, err := object(body, "")
	if err != nil {
		return engine.Identity{}, err
	}
	for _, m := range []struct{ key, want string }{{"deviceId", id.DeviceID}, {"moduleId", id.ModuleID}} {
		got, err := f.text(m.key)
		if err != nil {
			return engine.Identity{}, err
		}
		if got != "" && got != m.want {
			return engine.Identity{}, invalid("%s in the body is not the one in the path; expected %q", m.key, m.want)
		}
	}
	return identityFrom(f, id)
}

// identityFrom reads the members that an identity's document and a bulk item share.
func identityFrom(f fields, id engine.TwinID) (engine.Identity, error) {
	i := engine.Identity{DeviceID: id.DeviceID, ModuleID: id.ModuleID}
	err := firstError(
		func() error { return f.into("managedBy", &i.ManagedBy) },
		func() error { return f.into("statusReason", &i.StatusReason) },
		func() error { return f.into("deviceScope", &i.DeviceScope) },
		func() (err error) { i.ParentScopes, err = f.texts("parentScopes", 16); return err },
		func() (err error) { i.Disabled, err = disabledFrom(f); return err },
		func() error {
			c, err := f.object("capabilities")
			if err == nil {
				i.Edge, err = c.boolean("iotEdge")
			}
			return err
		},
		func() (err error) { i.Authentication, err = authenticationFrom(f, id.ModuleID != ""); return err },
	)
	if id.ModuleID != "" {
		i.Disabled, i.StatusReason, i.Edge, i.DeviceScope, i.ParentScopes = false, "", false, "", nil
	} else {
		i.ManagedBy = ""
	}
	return i, err
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// into stores a string member.
func (f fields) into(key string, to *string) (err error) {
	*to, err = f.text(key)
	return err
}

func disabledFrom(f fields) (bool, error) {
	s, err := f.text("status")
	switch {
	case err != nil:
		return false, err
	case s == "" || strings.EqualFold(s, statusEnabled):
		return false, nil
	case strings.EqualFold(s, statusDisabled):
		return true, nil
	}
	return false, invalid("%s is not a known status; expected enabled or disabled", f.name("status"))
}

// authenticationFrom reads the credentials. What belongs to another type than
// the one named is ignored: clients send back whole documents.
func authenticationFrom(f fields, module bool) (engine.Authentication, error) {
	var a engine.Authentication
	f, err := f.object("authentication")
	if err != nil {
		return a, err
	}
	keys, err := f.object("symmetricKey")
	if err != nil {
		return a, err
	}
	prints, err := f.object("x509Thumbprint")
	if err != nil {
		return a, err
	}
	var primary, secondary, kind string
	err = firstError(
		func() error { return keys.into("primaryKey", &primary) },
		func() error { return keys.into("secondaryKey", &secondary) },
		func() error { return prints.into("primaryThumbprint", &a.PrimaryThumbprint) },
		func() error { return prints.into("secondaryThumbprint", &a.SecondaryThumbprint) },
		func() error { return f.into("type", &kind) },
	)
	if err != nil {
		return a, err
	}
	if a.Type, err = authenticationType(f, kind, module, a.PrimaryThumbprint+a.SecondaryThumbprint != "" && primary+secondary == ""); err != nil {
		return a, err
	}
	if a.Type != engine.AuthSelfSigned {
		a.PrimaryThumbprint, a.SecondaryThumbprint = "", ""
	}
	if a.Type == engine.AuthSAS || a.Type == engine.AuthNone {
		// With none too: the hub makes sas of it on all modules but the system's.
		a.PrimaryKey, a.SecondaryKey = auth.Secret(primary), auth.Secret(secondary)
	}
	return a, firstError(
		func() error { return checkKeys(keys, a) },
		func() error { return checkThumbprint(prints.name("primaryThumbprint"), a.PrimaryThumbprint) },
		func() error { return checkThumbprint(prints.name("secondaryThumbprint"), a.SecondaryThumbprint) },
	)
}

// authenticationType reads the type; without one, thumbprints alone mean selfSigned.
func authenticationType(f fields, kind string, module, thumbprintsOnly bool) (engine.AuthenticationType, error) {
	if kind == "" {
		if thumbprintsOnly {
			return engine.AuthSelfSigned, nil
		}
		return engine.AuthSAS, nil
	}
	for _, t := range []engine.AuthenticationType{engine.AuthSAS, engine.AuthSelfSigned, engine.AuthCertificateAuthority} {
		if strings.EqualFold(kind, string(t)) {
			return t, nil
		}
	}
	if strings.EqualFold(kind, string(engine.AuthNone)) {
		if module {
			return engine.AuthNone, nil
		}
		return "", invalid("%s is none, which a device cannot have; expected sas, selfSigned or certificateAuthority", f.name("type"))
	}
	return "", invalid("%s is not a known type; expected sas, selfSigned or certificateAuthority", f.name("type"))
}

// checkKeys applies IoT Hub's rule: both keys or none, base64 of 16 to 64 bytes.
func checkKeys(f fields, a engine.Authentication) error {
	p, s := a.PrimaryKey.Reveal(), a.SecondaryKey.Reveal()
	if p == "" && s == "" {
		return nil
	}
	if p == "" || s == "" {
		return invalid("%s has one key; expected either no keys or both", f.name(""))
	}
	if p == s {
		// Allowed: IoT Hub takes it, and devices in the field rely on it.
		return wrapKey(f.name("primaryKey"), auth.CheckKey(p))
	}
	return errors.Join(wrapKey(f.name("primaryKey"), auth.CheckKey(p)), wrapKey(f.name("secondaryKey"), auth.CheckKey(s)))
}

func wrapKey(name string, err error) error {
	if err == nil {
		return nil
	}
	return invalid("%s: %s", name, err)
}

// checkThumbprint wants hexadecimal digits without separators, of SHA-1 or SHA-256.
func checkThumbprint(name, t string) error {
	if t == "" {
		return nil
	}
	hex := strings.IndexFunc(t, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f') && (r < 'A' || r > 'F')
	}) < 0
	if !hex || len(t) != 40 && len(t) != 64 {
		return invalid("%s is not a thumbprint; expected 40 (SHA-1) or 64 (SHA-256) hexadecimal digits without separators", name)
	}
	return nil
}
