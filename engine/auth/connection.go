package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

const maxConnectionStringBytes = 4 << 10

// ConnectionString is what a person copies into an application or a device:
// where the hub is and which key opens it, in IoT Hub's form.
type ConnectionString struct {
	HostName            string
	SharedAccessKeyName string // a policy's name; with it the string is a service's
	DeviceID            string
	ModuleID            string
	GatewayHostName     string
	SharedAccessKey     Secret
	X509                bool // the device shows a certificate instead of a key
}

// ParseConnectionString reads "HostName=..;DeviceId=..;SharedAccessKey=.." and
// the other forms of IoT Hub. Names are taken in any case and order; a name
// that is unknown or repeated is an error. Errors never quote a value.
func ParseConnectionString(s string) (ConnectionString, error) {
	var c ConnectionString
	if len(s) > maxConnectionStringBytes {
		return c, fmt.Errorf("the connection string has %d bytes; expected at most %d", len(s), maxConnectionStringBytes)
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(strings.TrimSpace(s), ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok {
			return ConnectionString{}, errors.New(`the connection string has a part without "="; expected NAME=VALUE parts separated by ";"`)
		}
		if seen[name] {
			return ConnectionString{}, fmt.Errorf("the connection string has %q twice; expected it once", clip(name))
		}
		seen[name] = true
		if err := c.set(name, strings.TrimSpace(value)); err != nil {
			return ConnectionString{}, err
		}
	}
	if err := c.check(); err != nil {
		return ConnectionString{}, err
	}
	return c, nil
}

func (c *ConnectionString) set(name, value string) error {
	switch name {
	case "hostname":
		c.HostName = value
	case "sharedaccesskeyname":
		c.SharedAccessKeyName = value
	case "deviceid":
		c.DeviceID = value
	case "moduleid":
		c.ModuleID = value
	case "gatewayhostname":
		c.GatewayHostName = value
	case "sharedaccesskey":
		c.SharedAccessKey = Secret(value)
	case "x509":
		c.X509 = strings.EqualFold(value, "true")
	default:
		return fmt.Errorf("the connection string has the unknown name %q; expected HostName, SharedAccessKeyName, SharedAccessKey, DeviceId, ModuleId, GatewayHostName or x509", clip(name))
	}
	return nil
}

func (c *ConnectionString) check() error {
	switch {
	case c.HostName == "":
		return errors.New("the connection string lacks HostName; copy the whole string that the hub printed")
	case c.DeviceID == "" && c.SharedAccessKeyName == "":
		return errors.New("the connection string names neither a device nor a policy; expected DeviceId or SharedAccessKeyName")
	case c.ModuleID != "" && c.DeviceID == "":
		return errors.New("the connection string has ModuleId without DeviceId; expected both")
	case c.SharedAccessKey == "" && !c.X509:
		return errors.New("the connection string lacks SharedAccessKey; copy the whole string that the hub printed")
	case c.SharedAccessKey != "":
		if _, err := c.SharedAccessKey.Bytes(); err != nil {
			return fmt.Errorf("SharedAccessKey in the connection string: %w", err)
		}
	}
	return nil
}

// String writes IoT Hub's form with the key in clear, to be handed to its
// user. Never log it: slog and %#v show the key as "***".
func (c ConnectionString) String() string { return c.text(c.SharedAccessKey.Reveal()) }

// GoString is String with the key as "***".
func (c ConnectionString) GoString() string { return c.redacted() }

// LogValue is String with the key as "***".
func (c ConnectionString) LogValue() slog.Value { return slog.StringValue(c.redacted()) }

func (c ConnectionString) redacted() string {
	if c.SharedAccessKey == "" {
		return c.text("")
	}
	return c.text(redacted)
}

func (c ConnectionString) text(key string) string {
	var b strings.Builder
	add := func(name, value string) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		b.WriteString(name + "=" + value)
	}
	add("HostName", c.HostName)
	add("DeviceId", c.DeviceID)
	add("ModuleId", c.ModuleID)
	add("SharedAccessKeyName", c.SharedAccessKeyName)
	add("SharedAccessKey", key)
	if c.X509 {
		add("x509", "true")
	}
	add("GatewayHostName", c.GatewayHostName)
	return b.String()
}
