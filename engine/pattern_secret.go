package engine

import (
	"context"

	"github.com/muster-hub/muster/storage"
)

// PatternSecrets lists the secrets of patterns by name, without their values.
func (h *Hub) PatternSecrets(ctx context.Context, c Caller) ([]PatternSecret, error) {
	return nil, errf(CodeInternal, "not yet")
}

// SetPatternSecret sets a secret that patterns may use by its name.
func (h *Hub) SetPatternSecret(ctx context.Context, c Caller, name string, value []byte) error {
	return errf(CodeInternal, "not yet")
}

// DeletePatternSecret deletes a secret. CodeSecretNotFound.
func (h *Hub) DeletePatternSecret(ctx context.Context, c Caller, name string) error {
	return errf(CodeInternal, "not yet")
}

// secret returns the value of a secret of patterns; CodeSecretNotFound.
func (h *Hub) secret(r storage.Reader, name string) (string, error) {
	return "", errf(CodeInternal, "not yet")
}
