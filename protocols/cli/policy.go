package cli

import (
	"fmt"
	"strings"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

type policyGroup struct {
	List             policyListCmd       `cmd:"" help:"List the shared access policies."`
	Show             policyShowCmd       `cmd:"" help:"Show one policy."`
	Create           policyCreateCmd     `cmd:"" help:"Create a policy with two new keys."`
	Update           policyUpdateCmd     `cmd:"" help:"Change a policy's permissions."`
	Rotate           policyRotateCmd     `cmd:"" help:"Give a policy a new key."`
	Delete           policyDeleteCmd     `cmd:"" help:"Delete a policy."`
	ConnectionString policyConnectionCmd `cmd:"" help:"Print a policy's connection string, in IoT Hub's form."`
}

type policyListCmd struct {
	HubFlags
	OutputFlags
}

// Run lists the policies.
func (c *policyListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, err := s.Policies(ctx)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"POLICY", "PERMISSIONS"}, empty: "No policies."}
	for _, p := range list {
		sh.add(policyWithoutKeys(p), p.Name, strings.Join(p.Permissions, ","))
	}
	return a.print(c.OutputFlags, sh)
}

func policyWithoutKeys(p client.Policy) client.Policy {
	p.PrimaryKey, p.SecondaryKey = "", ""
	return p
}

func (a *app) printPolicy(o OutputFlags, p client.Policy, keys bool) error {
	fields := []field{{"policy", p.Name}, {"permissions", strings.Join(p.Permissions, ",")}}
	if keys {
		fields = append(fields, field{"primary key", p.PrimaryKey}, field{"secondary key", p.SecondaryKey})
	} else {
		p = policyWithoutKeys(p)
	}
	return a.printRecord(o, p, fields)
}

type policyShowCmd struct {
	HubFlags
	OutputFlags
	Keys bool   `help:"Show the keys too."`
	Name string `arg:"" help:"Name of the policy."`
}

// Run shows a policy.
func (c *policyShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	p, err := s.Policy(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.printPolicy(c.OutputFlags, p, c.Keys)
}

// PolicyArgs are a policy's name and permissions.
type PolicyArgs struct {
	Name        string   `arg:"" help:"Name of the policy."`
	Permissions []string `arg:"" name:"permission" help:"RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect, StatusRead, AuditRead, PolicyManage, HubManage."`
}

func (p *PolicyArgs) permissions() (client.StringList, error) {
	list, err := auth.ParsePermissions(strings.Join(p.Permissions, ","))
	if err != nil {
		return nil, usage(err.Error(), "`muster policy create --help` lists the permissions.")
	}
	return strings.Split(list.String(), ","), nil
}

type policyCreateCmd struct {
	HubFlags
	OutputFlags
	PolicyArgs
}

// Run creates a policy.
func (c *policyCreateCmd) Run(a *app) error {
	permissions, err := c.permissions()
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := s.Policy(ctx, c.Name); err == nil {
		return &problem{exit: ExitConflict, what: fmt.Sprintf("the policy %q exists already", c.Name), next: "Change it with `muster policy update`, or choose another name."}
	} else if !client.IsNotFound(err) {
		return err
	}
	p, err := s.PutPolicy(ctx, client.Policy{Name: c.Name, Permissions: permissions})
	if err != nil {
		return err
	}
	return a.printPolicy(c.OutputFlags, p, false)
}

type policyUpdateCmd struct {
	HubFlags
	OutputFlags
	PolicyArgs
}

// Run changes a policy.
func (c *policyUpdateCmd) Run(a *app) error {
	permissions, err := c.permissions()
	if err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := s.Policy(ctx, c.Name); err != nil {
		return err
	}
	p, err := s.PutPolicy(ctx, client.Policy{Name: c.Name, Permissions: permissions})
	if err != nil {
		return err
	}
	return a.printPolicy(c.OutputFlags, p, false)
}

type policyRotateCmd struct {
	HubFlags
	OutputFlags
	Slot string `help:"Which key: primary, secondary or both." enum:"primary,secondary,both" default:"secondary"`
	Yes  bool   `short:"y" help:"Don't ask."`
	Name string `arg:"" help:"Name of the policy."`
}

// Run gives a policy a new key.
func (c *policyRotateCmd) Run(a *app) error {
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Replace the %s key of %s? Whoever uses it is locked out at once.", c.Slot, printable(c.Name)))
	if err != nil {
		return err
	}
	defer stop()
	p, err := s.RotatePolicy(ctx, c.Name, c.Slot)
	if err != nil {
		return err
	}
	return a.printPolicy(c.OutputFlags, p, false)
}

type policyDeleteCmd struct {
	HubFlags
	Yes  bool   `short:"y" help:"Don't ask."`
	Name string `arg:"" help:"Name of the policy."`
}

// Run deletes a policy.
func (c *policyDeleteCmd) Run(a *app) error {
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, fmt.Sprintf("Delete the policy %s? Whoever uses it is locked out at once.", printable(c.Name)))
	if err != nil {
		return err
	}
	defer stop()
	if err := s.DeletePolicy(ctx, c.Name); err != nil {
		return err
	}
	a.note("Deleted policy %s.", printable(c.Name))
	return nil
}

type policyConnectionCmd struct {
	HubFlags
	OutputFlags
	Secondary bool   `help:"With the secondary key."`
	Name      string `arg:"" help:"Name of the policy."`
}

// Run prints a policy's connection string.
func (c *policyConnectionCmd) Run(a *app) error {
	return a.policyConnection(c.HubFlags, c.OutputFlags, c.Name, c.Secondary)
}

type connectionStringCmd struct {
	HubFlags
	OutputFlags
	Policy    string `help:"Shared access policy: iothubowner, service, device, registryRead, registryReadWrite, or one of your own." default:"iothubowner" placeholder:"NAME"`
	Secondary bool   `help:"With the secondary key."`
}

// Run prints a policy's connection string.
func (c *connectionStringCmd) Run(a *app) error {
	return a.policyConnection(c.HubFlags, c.OutputFlags, c.Policy, c.Secondary)
}

func (a *app) policyConnection(h HubFlags, o OutputFlags, name string, secondary bool) error {
	s, err := a.service(h)
	if err != nil {
		return err
	}
	ctx, stop := a.with(h)
	defer stop()
	text, err := s.PolicyConnectionString(ctx, name, slotName(secondary))
	if err != nil {
		return err
	}
	return a.printConnectionString(ctx, s, o, text)
}
