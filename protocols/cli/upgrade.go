package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// UpgradeFlags say what `upgrade --check` looks at.
type UpgradeFlags struct {
	StoreFlags
	BackupDir string
	Reserve   Bytes

	Running *client.HubInfo // nil: no hub answers
	Backups *client.Backups // of the hub that answers
}

type upgradeCmd struct {
	Data          string        `help:"Data directory." default:"./muster-data" placeholder:"DIR"`
	MasterKeyFile string        `help:"File with the key that seals secrets; default DATA/master.key." placeholder:"FILE"`
	Memory        Bytes         `help:"The hub's memory for its store, such as 512MiB, which its reserve of free space follows from; 0 takes the store's default." default:"0" placeholder:"SIZE"`
	Reserve       Bytes         `help:"Free disk space below which changes are refused; 0 computes it." default:"0" placeholder:"SIZE"`
	BackupDir     string        `help:"Directory of the hub's backups; needed only when the hub does not run." placeholder:"DIR"`
	Check         bool          `help:"Only look, and change nothing; the only way there is."`
	Timeout       time.Duration `help:"How long to wait for the running hub's answer." default:"10s"`
	OutputFlags
}

// Run looks at a data directory with the eyes of this program.
func (c *upgradeCmd) Run(a *app) error {
	if !c.Check {
		return usage("upgrade does not replace the program: the package or you do", "Run `muster upgrade --check` with the new program; it says whether that can take over, and what to do first.")
	}
	if a.hooks.Upgrade == nil {
		return notBuilt("upgrade --check")
	}
	f := UpgradeFlags{StoreFlags: StoreFlags{Data: c.Data, MasterKeyFile: c.MasterKeyFile, Memory: c.Memory}, BackupDir: c.BackupDir, Reserve: c.Reserve}
	s, err := a.service(HubFlags{WhichHub: WhichHub{Data: c.Data}})
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(a.ctx, c.Timeout)
	defer stop()
	hub, err := s.Hub(ctx)
	_, unreached := errors.AsType[*client.ConnectError](err)
	switch {
	case err == nil:
		f.Running = &hub
		b, err := s.Backups(ctx)
		if err == nil {
			f.Backups = &b
		} else if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != 404 { // an older hub has none
			return err
		}
	case !unreached:
		return err
	}
	list, err := a.hooks.Upgrade(f)
	if err != nil {
		return err
	}
	err = a.printFindings(c.OutputFlags, list)
	if err == nil && c.Output == "table" {
		a.note("%s", upgradeSteps(f, a.version()))
	}
	return err
}

// upgradeSteps says what comes next when nothing stands against it.
func upgradeSteps(f UpgradeFlags, version string) string {
	if f.Running != nil {
		return fmt.Sprintf("Next: stop the hub (it drains and closes), then start it with this program, %s.", version)
	}
	return fmt.Sprintf("Next: start the hub with this program, %s.", version)
}
