package engine

import (
	"context"
	"errors"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// ApplyConfigurationContent replaces the desired properties of an edge device's
// modules, once, and makes those that it has not. The content is modulesContent
// with properties.desired as the only key of each module; anything else is
// CodeConfigurationContent, a device that is no edge device CodeArgumentInvalid.
// It needs ServiceConnect, and RegistryWrite to make modules.
func (h *Hub) ApplyConfigurationContent(ctx context.Context, c Caller, deviceID string, content ConfigurationContent) error {
	if err := h.authorize(ctx, c, opConfigurationApply, deviceID); err != nil {
		return err
	}
	parsed, err := h.parseContent(&content)
	if err != nil {
		return err
	}
	whole, err := parsed.Whole()
	if err != nil {
		return wrapf(CodeConfigurationContent, err, "%s", err.Error())
	}
	made := map[string]Identity{} // keys are made once, however often the transaction runs
	for module := range whole {
		i := Identity{DeviceID: deviceID, ModuleID: module, ManagedBy: "iotEdge", Authentication: Authentication{Type: AuthSAS}}
		if !isSystemModule(module) {
			if err := h.checkIdentity(&i, true); err != nil {
				return err
			}
			fillKeys(&i)
		} else {
			i.Authentication.Type = AuthNone // as when the hub makes it with its device
		}
		made[module] = i
	}
	return h.step(ctx, "configuration.apply", func(tx *storage.Tx) error {
		device, err := loadDevice(tx, deviceID)
		if err != nil {
			return err
		}
		if !device.Edge {
			return &Error{
				Code: CodeArgumentInvalid, Message: "the device \"" + deviceID + "\" is no edge device; expected one whose capabilities have iotEdge true",
				Next: "Use a configuration, or change the device's twin.",
			}
		}
		for _, module := range parsed.Modules() {
			id := TwinID{deviceID, module}
			_, err := moduleTable.Get(tx, id.key())
			switch {
			case errors.Is(err, storage.ErrNotFound):
				if !c.Permissions.Has(auth.RegistryWrite) {
					return errf(CodeForbidden, "the device has no module %q, and to make it needs the permission %s, which %s does not have", module, auth.RegistryWrite, c.Principal)
				}
				_, err = h.createIdentityTx(tx, c, made[module], TwinUpdate{Desired: whole[module]})
			case err == nil:
				var t twinRecord
				if _, t, err = h.loadTwin(tx, id); err == nil {
					err = h.changeTwinTx(tx, c, id, &t, TwinUpdate{Desired: whole[module]}, IfMatch{}, opTwinReplace)
				}
			}
			if err != nil {
				return err
			}
		}
		return h.auditTx(tx, c, opConfigurationApply, deviceID, nil)
	})
}
