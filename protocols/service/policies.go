package service

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type policyDocument struct {
	Name         string   `json:"name"`
	Permissions  []string `json:"permissions"`
	PrimaryKey   string   `json:"primaryKey,omitempty" doc:"Left out of lists."`
	SecondaryKey string   `json:"secondaryKey,omitempty" doc:"Left out of lists."`
}

type policyBody struct {
	Permissions  []string `json:"permissions" doc:"Names from the table of permissions."`
	PrimaryKey   string   `json:"primaryKey,omitempty" doc:"Base64 of 16 to 64 bytes; kept, or generated for a new policy, when absent."`
	SecondaryKey string   `json:"secondaryKey,omitempty"`
}

func showPolicy(p auth.SharedAccessPolicy) policyDocument {
	d := policyDocument{Name: p.Name, Permissions: []string{}, PrimaryKey: p.PrimaryKey.Reveal(), SecondaryKey: p.SecondaryKey.Reveal()}
	for _, row := range auth.Permissions() {
		if p.Permissions&row.Permission != 0 {
			d.Permissions = append(d.Permissions, row.Name)
		}
	}
	return d
}

func listPolicies(c *call) (answer, error) {
	list, err := c.hub.Policies(c.r.Context(), c.caller)
	return answer{body: page[policyDocument]{Items: show(list, func(p auth.SharedAccessPolicy) policyDocument {
		p.PrimaryKey, p.SecondaryKey = "", ""
		return showPolicy(p)
	})}}, err
}

func getPolicy(c *call) (answer, error) {
	p, err := c.hub.Policy(c.r.Context(), c.caller, c.params[0])
	return answer{body: showPolicy(p)}, err
}

func putPolicy(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	p, err := parsePolicy(body, c.params[0])
	if err != nil {
		return answer{}, err
	}
	p, err = c.hub.PutPolicy(c.r.Context(), c.caller, p)
	return answer{body: showPolicy(p)}, err
}

// parsePolicy reads a policy; unlike IoT Hub's documents it has no members
// that are ignored, since a misspelt one would change what somebody may do.
func parsePolicy(body []byte, name string) (auth.SharedAccessPolicy, error) {
	p := auth.SharedAccessPolicy{Name: name}
	f, err := object(body, "")
	if err != nil {
		return p, err
	}
	for key := range f.members {
		switch key {
		case "name", "permissions", "primaryKey", "secondaryKey":
		default:
			return p, invalid("%q is not a member of a policy; expected permissions, primaryKey and secondaryKey", clip(key))
		}
	}
	var given, primary, secondary string
	err = firstError(
		func() error { return f.into("name", &given) },
		func() error { return f.into("primaryKey", &primary) },
		func() error { return f.into("secondaryKey", &secondary) },
	)
	if err != nil {
		return p, err
	}
	if given != "" && given != name {
		return p, invalid("name in the body is not the one in the path; expected %q", name)
	}
	names, err := f.texts("permissions", 32)
	if err != nil {
		return p, err
	}
	if len(names) == 0 {
		return p, &engine.Error{Code: engine.CodeArgumentNull, Message: "permissions is missing or empty; expected an array of names such as RegistryRead"}
	}
	if p.Permissions, err = auth.ParsePermissions(strings.Join(names, ",")); err != nil {
		return p, invalid("permissions: %s", err)
	}
	p.PrimaryKey, p.SecondaryKey = auth.Secret(primary), auth.Secret(secondary)
	for _, k := range []struct{ name, key string }{{"primaryKey", primary}, {"secondaryKey", secondary}} {
		if k.key != "" {
			if err := wrapKey(k.name, auth.CheckKey(k.key)); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// clip bounds a client's text that a message quotes.
func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}

func deletePolicy(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeletePolicy(c.r.Context(), c.caller, c.params[0])
}

type rotateBody struct {
	Key string `json:"key" enum:"primary,secondary,both"`
}

func rotatePolicy(c *call) (answer, error) {
	f, err := c.members("key")
	if err != nil {
		return answer{}, err
	}
	slot, err := keySlot(f, "key")
	if err != nil {
		return answer{}, err
	}
	p, err := c.hub.RotatePolicyKey(c.r.Context(), c.caller, c.params[0], slot)
	return answer{body: showPolicy(p)}, err
}

func getPolicyConnectionString(c *call) (answer, error) {
	slot, err := c.slot()
	if err != nil {
		return answer{}, err
	}
	s, err := c.hub.PolicyConnectionString(c.r.Context(), c.caller, c.params[0], slot)
	return answer{body: connectionString{s.String()}}, err
}

func getAudit(c *call) (answer, error) {
	limit, err := c.integer("limit", pageDefault, 1, pageMost)
	if err != nil {
		return answer{}, err
	}
	var cursor uint64
	if text := c.query.Get("cursor"); text != "" {
		if cursor, err = strconv.ParseUint(text, 10, 64); err != nil || cursor == 0 {
			return answer{}, invalid("the cursor is not one that this list gave; start again without a cursor")
		}
	}
	list, next, err := c.hub.Audit(c.r.Context(), c.caller, cursor, limit)
	p := page[engine.AuditEntry]{Items: list}
	if p.Items == nil {
		p.Items = []engine.AuditEntry{}
	}
	if next != 0 {
		p.Cursor = strconv.FormatUint(next, 10)
	}
	return answer{body: p}, err
}

func verifyAudit(c *call) (answer, error) {
	c.wait(auditTime)
	check, err := c.hub.VerifyAudit(c.r.Context(), c.caller)
	return answer{body: check}, err
}
