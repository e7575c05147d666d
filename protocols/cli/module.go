package cli

import (
	"fmt"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type moduleGroup struct {
	Create           moduleCreateCmd     `cmd:"" help:"Create a module identity."`
	List             moduleListCmd       `cmd:"" help:"List a device's modules."`
	Show             moduleShowCmd       `cmd:"" help:"Show one module identity."`
	Update           moduleUpdateCmd     `cmd:"" help:"Change a module identity."`
	Delete           moduleDeleteCmd     `cmd:"" help:"Delete a module identity with its twin."`
	ConnectionString moduleConnectionCmd `cmd:"" help:"Print a module's connection string, in IoT Hub's form."`
}

// ModuleArgs name a module.
type ModuleArgs struct {
	Device string `arg:"" name:"device" help:"Device id."`
	Module string `arg:"" name:"module" help:"Module id."`
}

type moduleCreateCmd struct {
	HubFlags
	OutputFlags
	CredentialFlags
	ManagedBy string `help:"Who manages it." placeholder:"NAME"`
	ModuleArgs
}

// Run creates a module.
func (c *moduleCreateCmd) Run(a *app) error {
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	credentials, err := c.authentication()
	if err != nil {
		return err
	}
	ctx, stop := a.with(c.HubFlags)
	defer stop()
	out, err := s.CreateIdentity(ctx, client.Identity{DeviceID: c.Device, ModuleID: c.Module, ManagedBy: c.ManagedBy, Authentication: credentials})
	if err != nil {
		return err
	}
	return a.printIdentity(c.OutputFlags, out, false)
}

type moduleListCmd struct {
	HubFlags
	OutputFlags
	Device string `arg:"" name:"device" help:"Device id."`
}

// Run lists a device's modules.
func (c *moduleListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, err := s.Modules(ctx, c.Device)
	if err != nil {
		return err
	}
	sh := &sheet{
		columns: []string{"MODULE", "CONNECTION", "LAST ACTIVITY", "AUTH", "MANAGED BY"},
		empty:   "No modules on " + printable(c.Device) + ".",
	}
	for _, m := range list {
		sh.add(withoutKeys(m), m.ModuleID, strings.ToLower(m.ConnectionState), m.LastActivityTime, authType(m), m.ManagedBy)
	}
	return a.print(c.OutputFlags, sh)
}

type moduleShowCmd struct {
	HubFlags
	OutputFlags
	Keys bool `help:"Show the keys too."`
	ModuleArgs
}

// Run shows a module.
func (c *moduleShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	i, err := s.Identity(ctx, c.Device, c.Module)
	if err != nil {
		return err
	}
	return a.printIdentity(c.OutputFlags, i, c.Keys)
}

type moduleUpdateCmd struct {
	HubFlags
	OutputFlags
	KeyChangeFlags
	ManagedBy string `help:"Who manages it; - removes it." placeholder:"NAME"`
	ETag      string `name:"etag" help:"Change it only if it still has this ETag." placeholder:"ETAG"`
	ModuleArgs
}

// Run changes a module.
func (c *moduleUpdateCmd) Run(a *app) error {
	if c.empty() && c.ManagedBy == "" {
		return usage("nothing to change", "`muster module update --help` lists what can be changed.")
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	out, err := changeIdentity(ctx, s, c.Device, c.Module, c.ETag, func(i *client.Identity) error {
		if c.ManagedBy != "" {
			i.ManagedBy = strings.TrimPrefix(c.ManagedBy, "-")
		}
		return c.apply(i)
	})
	if err != nil {
		return err
	}
	return a.printIdentity(c.OutputFlags, out, false)
}

type moduleDeleteCmd struct {
	HubFlags
	Yes  bool   `short:"y" help:"Don't ask."`
	ETag string `name:"etag" help:"Delete it only if it still has this ETag." placeholder:"ETAG"`
	ModuleArgs
}

// Run deletes a module.
func (c *moduleDeleteCmd) Run(a *app) error {
	id := printable(c.Device + "/" + c.Module)
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Delete module %s with its twin?", id))
	if err != nil {
		return err
	}
	defer stop()
	if err := s.DeleteIdentity(ctx, c.Device, c.Module, c.ETag); err != nil {
		return err
	}
	a.note("Deleted module %s.", id)
	return nil
}

type moduleConnectionCmd struct {
	HubFlags
	OutputFlags
	Secondary bool `help:"With the secondary key."`
	ModuleArgs
}

// Run prints a module's connection string.
func (c *moduleConnectionCmd) Run(a *app) error {
	return a.identityConnection(c.HubFlags, c.OutputFlags, c.Device, c.Module, c.Secondary)
}
