package engine

import "context"

// TrustedKeys lists the keys whose signatures of patterns are trusted, by name.
func (h *Hub) TrustedKeys(ctx context.Context, c Caller) ([]TrustedKey, error) {
	return nil, errf(CodeInternal, "not yet")
}

// TrustKey trusts an ed25519 key, base64.
func (h *Hub) TrustKey(ctx context.Context, c Caller, name, key string) (TrustedKey, error) {
	return TrustedKey{}, errf(CodeInternal, "not yet")
}

// DistrustKey trusts a key no more.
func (h *Hub) DistrustKey(ctx context.Context, c Caller, name string) error {
	return errf(CodeInternal, "not yet")
}
