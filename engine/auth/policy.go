package auth

// SharedAccessPolicy is a named key pair with rights, as in IoT Hub: who signs
// a token with either key acts with the policy's permissions.
type SharedAccessPolicy struct {
	Name         string
	Permissions  Permission
	PrimaryKey   Secret
	SecondaryKey Secret
}

// Verify reports whether one of the policy's keys signed t. It looks neither
// at the token's expiry nor at its scope or policy name.
func (p SharedAccessPolicy) Verify(t Token) bool {
	return t.VerifyKeys(p.PrimaryKey, p.SecondaryKey)
}

// StandardPolicies returns IoT Hub's five default policies, without keys. Only
// iothubowner also holds Muster's own rights.
func StandardPolicies() []SharedAccessPolicy {
	return []SharedAccessPolicy{
		{Name: "iothubowner", Permissions: AllPermissions},
		{Name: "service", Permissions: ServiceConnect},
		{Name: "device", Permissions: DeviceConnect},
		{Name: "registryRead", Permissions: RegistryRead},
		{Name: "registryReadWrite", Permissions: RegistryRead | RegistryWrite},
	}
}
