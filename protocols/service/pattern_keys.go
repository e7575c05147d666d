package service

import (
	"net/http"
	"time"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

type trustedKey struct {
	Name        string    `json:"name"`
	Key         string    `json:"key" doc:"An ed25519 public key, base64."`
	CreatedTime time.Time `json:"createdTime"`
}

type trustedKeyBody struct {
	Key string `json:"key" doc:"An ed25519 public key, base64."`
}

type patternSecret struct {
	Name        string    `json:"name"`
	UpdatedTime time.Time `json:"updatedTime"`
	Principal   string    `json:"principal" doc:"Who set it."`
}

type patternSecretBody struct {
	Value string `json:"value" doc:"Nobody can read it again."`
}

// patternKeyRoutes are the keys and secrets of patterns. They stand beside
// /patterns, whose names are free to choose.
func patternKeyRoutes() []*route {
	const need, keys, secrets = auth.HubManage, "/api/v1/pattern-keys", "/api/v1/pattern-secrets"
	table := []*route{
		{
			method: http.MethodGet, pattern: keys, operation: "listPatternKeys", tag: tagPatterns, permission: need,
			summary: "Lists the keys whose signatures on patterns the hub trusts, by name.", response: page[trustedKey]{}, handle: listPatternKeys,
		},
		{
			method: http.MethodPut, pattern: keys + "/{name}", operation: "putPatternKey", tag: tagPatterns, permission: need,
			summary: "Trusts a key, or another one under this name.", request: trustedKeyBody{}, response: trustedKey{}, handle: putPatternKey,
		},
		{
			method: http.MethodDelete, pattern: keys + "/{name}", operation: "deletePatternKey", tag: tagPatterns, permission: need,
			summary: "Trusts a key no more; what was installed stays.", status: http.StatusNoContent, handle: deletePatternKey,
		},
		{
			method: http.MethodGet, pattern: secrets, operation: "listPatternSecrets", tag: tagPatterns, permission: need,
			summary: "Lists the secrets that patterns may use, by name and without their values.", response: page[patternSecret]{}, handle: listPatternSecrets,
		},
		{
			method: http.MethodPut, pattern: secrets + "/{name}", operation: "putPatternSecret", tag: tagPatterns, permission: need,
			summary: "Makes a secret, or gives it another value.", request: patternSecretBody{}, status: http.StatusNoContent, handle: putPatternSecret,
		},
		{
			method: http.MethodDelete, pattern: secrets + "/{name}", operation: "deletePatternSecret", tag: tagPatterns, permission: need,
			summary: "Deletes a secret.", status: http.StatusNoContent, handle: deletePatternSecret,
		},
	}
	for _, r := range table {
		r.shape = shapeProblem
	}
	return table
}

func showTrustedKey(k engine.TrustedKey) trustedKey {
	return trustedKey{k.Name, k.Key, k.Created.UTC()}
}

func listPatternKeys(c *call) (answer, error) {
	list, err := c.hub.TrustedKeys(c.r.Context(), c.caller)
	return answer{body: page[trustedKey]{Items: show(list, showTrustedKey)}}, err
}

func putPatternKey(c *call) (answer, error) {
	f, err := c.members("key")
	if err != nil {
		return answer{}, err
	}
	key, err := f.text("key")
	if err != nil {
		return answer{}, err
	}
	k, err := c.hub.TrustKey(c.r.Context(), c.caller, c.params[0], key)
	return answer{body: showTrustedKey(k)}, err
}

func deletePatternKey(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DistrustKey(c.r.Context(), c.caller, c.params[0])
}

func listPatternSecrets(c *call) (answer, error) {
	list, err := c.hub.PatternSecrets(c.r.Context(), c.caller)
	return answer{body: page[patternSecret]{Items: show(list, func(s engine.PatternSecret) patternSecret {
		return patternSecret{s.Name, s.Updated.UTC(), s.By}
	})}}, err
}

func putPatternSecret(c *call) (answer, error) {
	f, err := c.members("value")
	if err != nil {
		return answer{}, err
	}
	if _, ok := f.get("value"); !ok {
		return answer{}, &engine.Error{Code: engine.CodeArgumentNull, Message: "value is missing; expected the secret's text"}
	}
	value, err := f.text("value")
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, c.hub.SetPatternSecret(c.r.Context(), c.caller, c.params[0], []byte(value))
}

func deletePatternSecret(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeletePatternSecret(c.r.Context(), c.caller, c.params[0])
}
