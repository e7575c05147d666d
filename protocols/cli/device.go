package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

type deviceGroup struct {
	Create           deviceCreateCmd      `cmd:"" help:"Create device identities."`
	List             deviceListCmd        `cmd:"" help:"List device identities."`
	Show             deviceShowCmd        `cmd:"" help:"Show one device identity."`
	Update           deviceUpdateCmd      `cmd:"" help:"Change a device identity."`
	Delete           deviceDeleteCmd      `cmd:"" help:"Delete device identities with their twins and modules."`
	Enable           deviceEnableCmd      `cmd:"" help:"Let devices connect."`
	Disable          deviceDisableCmd     `cmd:"" help:"Cut devices off and refuse their connections."`
	Import           deviceImportCmd      `cmd:"" help:"Import identities and twins from a file, as a job of the hub."`
	Export           deviceExportCmd      `cmd:"" help:"Export identities and twins into a file."`
	Connections      deviceConnectionsCmd `cmd:"" help:"List the last connections and why they ended."`
	ConnectionString deviceConnectionCmd  `cmd:"" help:"Print a device's connection string, in IoT Hub's form."`
	Explain          deviceExplainCmd     `cmd:"" help:"Say who set each desired property, which configurations lost and why, and what other tags would change."`
}

// CredentialFlags say how an identity proves itself.
type CredentialFlags struct {
	Auth                string `help:"Authentication: sas, selfSigned or certificateAuthority." enum:"sas,selfSigned,certificateAuthority" default:"sas"`
	PrimaryKeyFile      string `help:"File with the primary key in base64; without it the hub makes both." placeholder:"FILE"`
	SecondaryKeyFile    string `help:"File with the secondary key in base64." placeholder:"FILE"`
	PrimaryThumbprint   string `help:"SHA-1 or SHA-256 of the certificate in hex, for selfSigned." placeholder:"HEX"`
	SecondaryThumbprint string `help:"The second thumbprint." placeholder:"HEX"`
}

func (c *CredentialFlags) authentication() (*client.Authentication, error) {
	a := &client.Authentication{Type: c.Auth}
	if (c.PrimaryKeyFile == "") != (c.SecondaryKeyFile == "") {
		return nil, usage("only one key is given", "Give both --primary-key-file and --secondary-key-file, or neither and the hub makes them.")
	}
	if c.PrimaryKeyFile != "" {
		if c.Auth != "sas" {
			return nil, usage("keys belong to --auth sas", "Leave the keys or --auth out.")
		}
		primary, err := readKey(c.PrimaryKeyFile)
		if err != nil {
			return nil, err
		}
		secondary, err := readKey(c.SecondaryKeyFile)
		if err != nil {
			return nil, err
		}
		a.SymmetricKey = &client.SymmetricKey{Primary: primary, Secondary: secondary}
	}
	if c.PrimaryThumbprint != "" || c.SecondaryThumbprint != "" {
		if c.Auth != "selfSigned" {
			return nil, usage("thumbprints belong to --auth selfSigned", "Add --auth selfSigned, or leave the thumbprints out.")
		}
		a.Thumbprint = &client.Thumbprint{Primary: c.PrimaryThumbprint, Secondary: c.SecondaryThumbprint}
	}
	return a, nil
}

func readKey(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", &problem{exit: ExitUsage, what: "the key file cannot be read", why: pathError(err), next: "Check the file's name and rights."}
	}
	key := strings.TrimSpace(string(data))
	if err := auth.CheckKey(key); err != nil {
		return "", &problem{exit: ExitUsage, what: name + " holds no key", why: err.Error(), next: "Write 16 to 64 random bytes in base64, such as from `openssl rand -base64 32`."}
	}
	return key, nil
}

type deviceCreateCmd struct {
	HubFlags
	OutputFlags
	CredentialFlags
	Disabled bool     `help:"Create it disabled."`
	Reason   string   `help:"Why it has this status; shown as statusReason." placeholder:"TEXT"`
	Edge     bool     `help:"An edge device, which can have children."`
	ID       []string `arg:"" name:"id" help:"Device ids: up to 128 ASCII letters, digits and some marks."`
}

// Run creates the devices.
func (c *deviceCreateCmd) Run(a *app) error {
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	credentials, err := c.authentication()
	if err != nil {
		return err
	}
	var made []client.Identity
	err = a.each(c.HubFlags, c.ID, func(ctx context.Context, id string) error {
		i := client.Identity{DeviceID: id, Status: "enabled", StatusReason: c.Reason, Authentication: credentials}
		if c.Disabled {
			i.Status = "disabled"
		}
		if c.Edge {
			i.Capabilities = &client.Capabilities{Edge: true}
		}
		out, err := s.CreateIdentity(ctx, i)
		if err == nil {
			made = append(made, out)
		}
		return err
	})
	switch {
	case len(made) == 0: // "No devices" would be said of the hub
		return err
	case len(made) == 1 && len(c.ID) == 1:
		return errors.Join(err, a.printIdentity(c.OutputFlags, made[0], false))
	}
	return errors.Join(err, a.printIdentities(c.OutputFlags, made))
}

// each runs f for every id. With several, failures are told as they come and
// the rest goes on; the end is "partly failed" unless all failed alike.
func (a *app) each(h HubFlags, ids []string, f func(ctx context.Context, id string) error) error {
	ctx, stop := a.with(h)
	defer stop()
	failed, last := 0, error(nil)
	for _, id := range ids {
		if err := f(ctx, id); err != nil {
			if len(ids) == 1 {
				return err
			}
			failed, last = failed+1, err
			p := a.explain(err)
			a.note("%s: %s (%s)", printable(id), printable(p.what), printable(p.why))
			if p.exit == ExitConnect && p.code == "" || ctx.Err() != nil {
				return err // no hub: the rest fails alike
			}
		}
	}
	switch {
	case failed == 0:
		return nil
	case failed == len(ids):
		p := *a.explain(last)
		p.what = fmt.Sprintf("all %d failed, the last one: %s", failed, p.what)
		return &p
	}
	return &problem{exit: ExitPartly, what: fmt.Sprintf("%d of %d failed", failed, len(ids)), next: "The lines above say which and why."}
}

type deviceListCmd struct {
	HubFlags
	OutputFlags
	Prefix    string `help:"Only ids that begin with this." placeholder:"TEXT"`
	Connected bool   `help:"Only devices that are connected now."`
	Limit     int    `help:"At most so many; 0 lists all." default:"1000"`
}

// Run lists devices.
func (c *deviceListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	var list []client.Identity
	more := false
	for d, err := range s.Devices(ctx, c.Prefix) {
		if err != nil {
			return err
		}
		if c.Connected && d.ConnectionState != "Connected" {
			continue
		}
		if c.Limit > 0 && len(list) == c.Limit {
			more = true
			break
		}
		list = append(list, d)
	}
	if err := a.printIdentities(c.OutputFlags, list); err != nil {
		return err
	}
	if more {
		a.note("There are more than %d; --limit 0 lists all, --prefix narrows.", c.Limit)
	}
	return nil
}

func (a *app) printIdentities(o OutputFlags, list []client.Identity) error {
	sh := &sheet{
		columns: []string{"DEVICE", "STATUS", "CONNECTION", "LAST ACTIVITY", "AUTH"},
		empty:   "No devices. Create one with `muster device create ID`, or fifty with `muster demo`.",
	}
	for _, d := range list {
		sh.add(withoutKeys(d), d.DeviceID, d.Status, strings.ToLower(d.ConnectionState), d.LastActivityTime, authType(d))
	}
	return a.print(o, sh)
}

func authType(i client.Identity) string {
	if i.Authentication == nil {
		return ""
	}
	return i.Authentication.Type
}

// withoutKeys hides an identity's keys: lists and screens are copied around.
func withoutKeys(i client.Identity) client.Identity {
	if i.Authentication == nil || i.Authentication.SymmetricKey == nil {
		return i
	}
	hidden := *i.Authentication
	hidden.SymmetricKey = nil
	i.Authentication = &hidden
	return i
}

func (a *app) printIdentity(o OutputFlags, i client.Identity, keys bool) error {
	fields := []field{{"device", i.DeviceID}}
	if i.ModuleID != "" {
		fields = append(fields, field{"module", i.ModuleID}, field{"managed by", i.ManagedBy})
	} else {
		fields = append(fields, field{"status", i.Status}, field{"reason", i.StatusReason})
	}
	fields = append(fields,
		field{"connection", strings.ToLower(i.ConnectionState)},
		field{"last activity", i.LastActivityTime},
		field{"auth", authType(i)},
	)
	if t := thumbprint(i); t.Primary != "" || t.Secondary != "" {
		fields = append(fields, field{"primary thumbprint", t.Primary}, field{"secondary thumbprint", t.Secondary})
	}
	if i.Capabilities != nil && i.Capabilities.Edge {
		fields = append(fields, field{"edge", true}, field{"scope", i.DeviceScope})
	}
	fields = append(fields, field{"etag", i.ETag}, field{"generation", i.GenerationID})
	if keys && i.Authentication != nil && i.Authentication.SymmetricKey != nil {
		fields = append(fields, field{"primary key", i.Authentication.SymmetricKey.Primary}, field{"secondary key", i.Authentication.SymmetricKey.Secondary})
	}
	if !keys {
		i = withoutKeys(i)
	}
	return a.printRecord(o, i, fields)
}

func thumbprint(i client.Identity) client.Thumbprint {
	if i.Authentication == nil || i.Authentication.Thumbprint == nil {
		return client.Thumbprint{}
	}
	return *i.Authentication.Thumbprint
}

type deviceShowCmd struct {
	HubFlags
	OutputFlags
	Keys bool   `help:"Show the keys too."`
	ID   string `arg:"" name:"id" help:"Device id."`
}

// Run shows a device.
func (c *deviceShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	i, err := s.Identity(ctx, c.ID, "")
	if err != nil {
		return err
	}
	a.noteFault(ctx, s, c.ID)
	return a.printIdentity(c.OutputFlags, i, c.Keys)
}

type deviceUpdateCmd struct {
	HubFlags
	OutputFlags
	KeyChangeFlags
	Status string `help:"enabled or disabled." enum:",enabled,disabled" default:"" placeholder:"STATUS"`
	Reason string `help:"Why it has this status; - removes it." placeholder:"TEXT"`
	Edge   *bool  `help:"Make it an edge device, or --no-edge." negatable:""`
	ETag   string `name:"etag" help:"Change it only if it still has this ETag." placeholder:"ETAG"`
	ID     string `arg:"" name:"id" help:"Device id."`
}

// KeyChangeFlags give an identity other credentials.
type KeyChangeFlags struct {
	NewKey              string `help:"Make a new key: primary, secondary or both. A live session with the old one ends." enum:",primary,secondary,both" default:"" placeholder:"SLOT"`
	SwapKeys            bool   `help:"Exchange primary and secondary key."`
	PrimaryThumbprint   string `help:"New thumbprint in hex." placeholder:"HEX"`
	SecondaryThumbprint string `help:"New second thumbprint in hex." placeholder:"HEX"`
}

func (k *KeyChangeFlags) apply(i *client.Identity) error {
	if i.Authentication == nil {
		i.Authentication = &client.Authentication{Type: "sas"}
	}
	a := i.Authentication
	if k.NewKey != "" || k.SwapKeys {
		if a.SymmetricKey == nil || a.SymmetricKey.Primary == "" {
			return usage("this identity has no keys; its authentication is "+a.Type, "Leave --new-key and --swap-keys out.")
		}
		if k.SwapKeys {
			a.SymmetricKey.Primary, a.SymmetricKey.Secondary = a.SymmetricKey.Secondary, a.SymmetricKey.Primary
		}
		if k.NewKey == "primary" || k.NewKey == "both" {
			a.SymmetricKey.Primary = auth.NewKey().Reveal()
		}
		if k.NewKey == "secondary" || k.NewKey == "both" {
			a.SymmetricKey.Secondary = auth.NewKey().Reveal()
		}
	}
	if k.PrimaryThumbprint != "" || k.SecondaryThumbprint != "" {
		t := thumbprint(*i)
		if k.PrimaryThumbprint != "" {
			t.Primary = k.PrimaryThumbprint
		}
		if k.SecondaryThumbprint != "" {
			t.Secondary = k.SecondaryThumbprint
		}
		a.Thumbprint = &t
	}
	return nil
}

func (k *KeyChangeFlags) empty() bool { return *k == KeyChangeFlags{} }

// Run changes a device.
func (c *deviceUpdateCmd) Run(a *app) error {
	if c.empty() && c.Status == "" && c.Reason == "" && c.Edge == nil {
		return usage("nothing to change", "`muster device update --help` lists what can be changed.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	out, err := changeIdentity(ctx, s, c.ID, "", c.ETag, func(i *client.Identity) error {
		if c.Status != "" {
			i.Status = c.Status
		}
		if c.Reason != "" {
			i.StatusReason = strings.TrimPrefix(c.Reason, "-")
		}
		if c.Edge != nil {
			i.Capabilities = &client.Capabilities{Edge: *c.Edge}
		}
		return c.apply(i)
	})
	if err != nil {
		return err
	}
	return a.printIdentity(c.OutputFlags, out, false)
}

// changeIdentity reads, changes and writes an identity under its ETag. Without
// an ETag from the caller it starts over when somebody else was faster.
func changeIdentity(ctx context.Context, s *client.Service, device, module, etag string, change func(*client.Identity) error) (client.Identity, error) {
	for try := 0; ; try++ {
		i, err := s.Identity(ctx, device, module)
		if err != nil {
			return i, err
		}
		if err := change(&i); err != nil {
			return i, err
		}
		match := etag
		if match == "" {
			match = i.ETag
		}
		out, err := s.UpdateIdentity(ctx, i, match)
		if etag == "" && try < 3 && client.HasCode(err, "PreconditionFailed") {
			continue
		}
		return out, err
	}
}

type deviceDeleteCmd struct {
	HubFlags
	Yes  bool     `short:"y" help:"Don't ask."`
	ETag string   `name:"etag" help:"Delete it only if it still has this ETag." placeholder:"ETAG"`
	ID   []string `arg:"" name:"id" help:"Device ids."`
}

// Run deletes devices.
func (c *deviceDeleteCmd) Run(a *app) error {
	if c.ETag != "" && len(c.ID) > 1 {
		return usage("--etag belongs to one device, and there are several", "Delete them one by one.")
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	if err := a.confirm(c.Yes, fmt.Sprintf("Delete %s with twin, modules and history?", few(c.ID))); err != nil {
		return err
	}
	return a.each(c.HubFlags, c.ID, func(ctx context.Context, id string) error {
		err := s.DeleteIdentity(ctx, id, "", c.ETag)
		if err == nil {
			a.note("Deleted device %s.", printable(id))
		}
		return err
	})
}

// few names up to three ids.
func few(ids []string) string {
	if len(ids) > 3 {
		return fmt.Sprintf("%d devices (%s, ...)", len(ids), printable(strings.Join(ids[:3], ", ")))
	}
	return printable(strings.Join(ids, ", "))
}

type deviceEnableCmd struct {
	HubFlags
	Reason string   `help:"Why; shown as statusReason." placeholder:"TEXT"`
	ID     []string `arg:"" name:"id" help:"Device ids."`
}

// Run enables devices.
func (c *deviceEnableCmd) Run(a *app) error {
	return a.setStatus(c.HubFlags, c.ID, "enabled", c.Reason)
}

type deviceDisableCmd struct {
	HubFlags
	Reason string   `help:"Why; shown as statusReason." placeholder:"TEXT"`
	ID     []string `arg:"" name:"id" help:"Device ids."`
}

// Run disables devices.
func (c *deviceDisableCmd) Run(a *app) error {
	return a.setStatus(c.HubFlags, c.ID, "disabled", c.Reason)
}

func (a *app) setStatus(h HubFlags, ids []string, status, reason string) error {
	s, err := a.service(h)
	if err != nil {
		return err
	}
	return a.each(h, ids, func(ctx context.Context, id string) error {
		_, err := changeIdentity(ctx, s, id, "", "", func(i *client.Identity) error {
			i.Status, i.StatusReason = status, reason
			return nil
		})
		if err == nil {
			a.note("Device %s is %s.", printable(id), status)
		}
		return err
	})
}

type deviceConnectionCmd struct {
	HubFlags
	OutputFlags
	Secondary bool   `help:"With the secondary key."`
	ID        string `arg:"" name:"id" help:"DEVICE, or DEVICE/MODULE."`
}

// Run prints a device's connection string.
func (c *deviceConnectionCmd) Run(a *app) error {
	device, module, err := splitID(c.ID)
	if err != nil {
		return err
	}
	return a.identityConnection(c.HubFlags, c.OutputFlags, device, module, c.Secondary)
}

func (a *app) identityConnection(h HubFlags, o OutputFlags, device, module string, secondary bool) error {
	s, err := a.service(h)
	if err != nil {
		return err
	}
	ctx, stop := a.with(h)
	defer stop()
	text, err := s.IdentityConnectionString(ctx, device, module, slotName(secondary))
	if err != nil {
		return err
	}
	return a.printConnectionString(ctx, s, o, text)
}

func slotName(secondary bool) string {
	if secondary {
		return "secondary"
	}
	return "primary"
}
