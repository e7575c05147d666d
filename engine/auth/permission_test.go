package auth

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPermissionsTable(t *testing.T) {
	var all Permission
	for i, row := range Permissions() {
		if row.Permission != 1<<i {
			t.Errorf("%s is bit %#x, want %#x: the bits are stored", row.Name, uint16(row.Permission), 1<<i)
		}
		if row.Permission.String() != row.Name || row.Text == "" || !strings.HasSuffix(row.Text, ".") {
			t.Errorf("row %+v", row)
		}
		p, err := ParsePermissions(row.Name)
		if err != nil || p != row.Permission {
			t.Errorf("%s: got %v, %v", row.Name, p, err)
		}
		all |= row.Permission
	}
	if all != AllPermissions {
		t.Errorf("AllPermissions is %v, the table has %v", AllPermissions, all)
	}
}

func TestPermissionHas(t *testing.T) {
	for _, c := range []struct {
		have, need Permission
		want       bool
	}{
		{RegistryRead, RegistryRead, true},
		{RegistryRead, RegistryWrite, false},
		{RegistryWrite, RegistryRead, true},
		{RegistryWrite, RegistryRead | RegistryWrite, true},
		{RegistryWrite, ServiceConnect, false},
		{ServiceConnect, RegistryRead, false},
		{ServiceConnect, ServiceConnect | DeviceConnect, false},
		{ServiceConnect | DeviceConnect, ServiceConnect | DeviceConnect, true},
		{AllPermissions, HubManage | AuditRead, true},
		{0, RegistryRead, false},
		{AllPermissions, 0, false},
		{0, 0, false},
	} {
		if got := c.have.Has(c.need); got != c.want {
			t.Errorf("%q has %q: got %v, want %v", c.have, c.need, got, c.want)
		}
	}
}

func TestParsePermissions(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Permission
	}{
		{"", 0},
		{"  ", 0},
		{"RegistryRead,RegistryWrite", RegistryRead | RegistryWrite},
		{" RegistryWrite , RegistryRead ", RegistryRead | RegistryWrite},
		{"serviceconnect,SERVICECONNECT", ServiceConnect},
		{AllPermissions.String(), AllPermissions},
	} {
		got, err := ParsePermissions(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: got %v, %v; want %v", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"Registry", "RegistryRead,", ",", "RegistryRead RegistryWrite", "0x1", strings.Repeat("x", 9999)} {
		got, err := ParsePermissions(in)
		if err == nil || got != 0 {
			t.Errorf("%.20q: got %v, %v; want an error", in, got, err)
		} else if len(err.Error()) > 400 || !strings.Contains(err.Error(), "HubManage") {
			t.Errorf("%.20q: %v", in, err)
		}
	}
}

func TestPermissionText(t *testing.T) {
	if got := (RegistryRead | 1<<15).String(); got != "RegistryRead,0x8000" {
		t.Errorf("got %s", got)
	}
	b, err := json.Marshal(map[string]Permission{"p": RegistryRead | ServiceConnect})
	if err != nil || string(b) != `{"p":"RegistryRead,ServiceConnect"}` {
		t.Fatalf("got %s, %v", b, err)
	}
	var m map[string]Permission
	if err := json.Unmarshal(b, &m); err != nil || m["p"] != RegistryRead|ServiceConnect {
		t.Errorf("got %v, %v", m, err)
	}
	if err := json.Unmarshal([]byte(`{"p":"all"}`), &m); err == nil {
		t.Error("accepted an unknown permission")
	}
}

func TestStandardPolicies(t *testing.T) {
	want := map[string]string{
		"iothubowner":       AllPermissions.String(),
		"service":           "ServiceConnect",
		"device":            "DeviceConnect",
		"registryRead":      "RegistryRead",
		"registryReadWrite": "RegistryRead,RegistryWrite",
	}
	for _, p := range StandardPolicies() {
		if want[p.Name] != p.Permissions.String() || p.PrimaryKey != "" || p.SecondaryKey != "" {
			t.Errorf("%+v", p)
		}
		delete(want, p.Name)
	}
	if len(want) != 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestPrincipal(t *testing.T) {
	for _, c := range []struct {
		p    Principal
		want string
	}{
		{Principal{Kind: Device, Name: "d1", DeviceID: "d1"}, "device:d1"},
		{Principal{Kind: Module, Name: "d1", DeviceID: "d1", ModuleID: "m"}, "module:d1/m"},
		{Principal{Kind: Policy, Name: "service"}, "policy:service"},
		{Principal{Kind: Local, Name: "uid=0"}, "local:uid=0"},
		{Principal{}, "nobody"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		scope, path string
		want        bool
	}{
		{"", "", true},
		{"", "/twins/x", true},
		{"/devices", "/devices", true},
		{"/devices", "/devices/x", true},
		{"/devices/", "/devices/x", true},
		{"/devices", "/twins/x", false},
		{"/dev", "/devices/x", false},
		{"/devices", "", false},
		{"/devices", "/Devices/x", false},
		{"/devices/ab", "/devices/abc", false},
		{"/devices/ab", "/devices/ab", true},
		{"/devices/ab", "/devices/ab/modules/m", true},
		{"/devices/ab/modules/m", "/devices/ab", false},
		{"/devices/a%b#?", "/devices/a%b#?/modules/m", true},
	} {
		if got := (Principal{Scope: c.scope}).Covers(c.path); got != c.want {
			t.Errorf("%q covers %q: got %v, want %v", c.scope, c.path, got, c.want)
		}
	}
}
