package auth

import (
	"strings"
	"testing"
)

func TestConnectionString(t *testing.T) {
	for _, c := range []struct {
		in   string
		want ConnectionString
		out  string // "" = in
	}{
		{
			"HostName=hub.example.com;SharedAccessKeyName=iothubowner;SharedAccessKey=" + vectorKey,
			ConnectionString{HostName: "hub.example.com", SharedAccessKeyName: "iothubowner", SharedAccessKey: vectorKey}, "",
		},
		{
			"HostName=hub.example.com;DeviceId=d1;SharedAccessKey=" + vectorKey,
			ConnectionString{HostName: "hub.example.com", DeviceID: "d1", SharedAccessKey: vectorKey}, "",
		},
		{
			"HostName=h;DeviceId=d1;ModuleId=m1;SharedAccessKey=" + vectorKey + ";GatewayHostName=g",
			ConnectionString{HostName: "h", DeviceID: "d1", ModuleID: "m1", GatewayHostName: "g", SharedAccessKey: vectorKey}, "",
		},
		{
			"HostName=h;DeviceId=a=b%#?'$;SharedAccessKey=" + vectorKey,
			ConnectionString{HostName: "h", DeviceID: "a=b%#?'$", SharedAccessKey: vectorKey}, "",
		},
		{
			"HostName=h;DeviceId=d1;x509=true",
			ConnectionString{HostName: "h", DeviceID: "d1", X509: true}, "",
		},
		{
			" sharedaccesskey=" + vectorKey + "; deviceid=d1 ;HOSTNAME=h;\n",
			ConnectionString{HostName: "h", DeviceID: "d1", SharedAccessKey: vectorKey},
			"HostName=h;DeviceId=d1;SharedAccessKey=" + vectorKey,
		},
	} {
		got, err := ParseConnectionString(c.in)
		if err != nil || got != c.want {
			t.Errorf("%s: got %#v, %v", c.in, got, err)
		}
		if c.out == "" {
			c.out = c.in
		}
		if got.String() != c.out {
			t.Errorf("got %s\nwant %s", got.String(), c.out)
		}
	}
}

func TestConnectionStringRefuses(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                 "",
		"no host":               "DeviceId=d;SharedAccessKey=" + vectorKey,
		"empty host":            "HostName=;DeviceId=d;SharedAccessKey=" + vectorKey,
		"nobody":                "HostName=h;SharedAccessKey=" + vectorKey,
		"no key":                "HostName=h;DeviceId=d",
		"x509=false and no key": "HostName=h;DeviceId=d;x509=false",
		"key is not base64":     "HostName=h;DeviceId=d;SharedAccessKey=se cret",
		"module alone":          "HostName=h;SharedAccessKeyName=p;ModuleId=m;SharedAccessKey=" + vectorKey,
		"no equals":             "HostName=h;DeviceId",
		"unknown name":          "HostName=h;Password=secret",
		"twice":                 "HostName=h;hostname=i;DeviceId=d;SharedAccessKey=" + vectorKey,
		"too large":             "HostName=" + strings.Repeat("h", maxConnectionStringBytes),
	} {
		got, err := ParseConnectionString(s)
		if err == nil || got != (ConnectionString{}) {
			t.Errorf("%s: got %#v, %v; want an error", name, got, err)
			continue
		}
		if strings.Contains(err.Error(), vectorKey) || strings.Contains(err.Error(), "se cret") || strings.Contains(err.Error(), "=secret") {
			t.Errorf("%s: the error quotes a value: %v", name, err)
		}
	}
}

func FuzzParseConnectionString(f *testing.F) {
	f.Add("HostName=h;DeviceId=d;SharedAccessKey=" + vectorKey)
	f.Add("HostName=h;SharedAccessKeyName=p;SharedAccessKey=" + vectorKey + ";GatewayHostName=g")
	f.Add("HostName=h;DeviceId=d;ModuleId=m;x509=true")
	f.Add(";;==;a")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConnectionString(s)
		if err != nil {
			return
		}
		again, err := ParseConnectionString(c.String())
		if err != nil || again != c {
			t.Fatalf("%q: %#v became %#v, %v", s, c, again, err)
		}
	})
}
