package auth

import (
	"fmt"
	"strings"
)

// Permission is a set of rights, one bit each. The zero value grants nothing.
type Permission uint16

// The first four are IoT Hub's rights, the others guard what only Muster has.
// The bits are stored: never renumber them.
const (
	RegistryRead   Permission = 1 << iota // read identities and registry statistics
	RegistryWrite                         // change identities; implies RegistryRead
	ServiceConnect                        // twins, queries, methods, messages, jobs, configurations
	DeviceConnect                         // act as a device towards the hub
	StatusRead                            // read the hub's status and health findings, and the forms of patterns
	AuditRead                             // read and verify the audit log
	PolicyManage                          // see, change and rotate shared access policies
	HubManage                             // operate the hub: backup, resume, drain

	permissionEnd
)

// AllPermissions is the set of every right, what iothubowner and local access hold.
const AllPermissions = permissionEnd - 1

// PermissionInfo describes one right for documentation and user interfaces.
type PermissionInfo struct {
	Permission Permission
	Name       string // as in policies and JSON
	Text       string // one line for people
}

// Permissions returns the table of all rights in bit order.
func Permissions() []PermissionInfo {
	return []PermissionInfo{
		{RegistryRead, "RegistryRead", "Read device and module identities, registry statistics and import/export jobs."},
		{RegistryWrite, "RegistryWrite", "Create, change and delete device and module identities; includes RegistryRead."},
		{ServiceConnect, "ServiceConnect", "Read and change twins, run queries, call direct methods, send cloud-to-device messages, manage jobs and configurations."},
		{DeviceConnect, "DeviceConnect", "Connect as any device: telemetry, own twin, direct methods and cloud-to-device messages."},
		{StatusRead, "StatusRead", "Read the hub's status, rates, connected devices and health findings, and the forms of patterns."},
		{AuditRead, "AuditRead", "Read and verify the audit log."},
		{PolicyManage, "PolicyManage", "List shared access policies; create, change, delete and rotate those that grant no more than the holder has, and read their keys."},
		{HubManage, "HubManage", "Operate the hub: backups, resume, drain and other maintenance."},
	}
}

// Has reports whether p grants every right in q. RegistryWrite grants
// RegistryRead. The empty q is never granted, so that a requirement somebody
// forgot to state refuses instead of letting everybody in.
func (p Permission) Has(q Permission) bool {
	if p&RegistryWrite != 0 {
		p |= RegistryRead
	}
	return q != 0 && p&q == q
}

// String lists the rights by name in bit order, separated by commas:
// "RegistryRead,RegistryWrite". Unknown bits are shown in hexadecimal.
func (p Permission) String() string {
	var names []string
	for _, row := range Permissions() {
		if p&row.Permission != 0 {
			names = append(names, row.Name)
			p &^= row.Permission
		}
	}
	if p != 0 {
		names = append(names, fmt.Sprintf("%#x", uint16(p)))
	}
	return strings.Join(names, ",")
}

// ParsePermissions reads the form that String writes: names separated by
// commas, with optional spaces, in any case and order. The empty text is the
// empty set. An unknown name is an error that lists the known ones.
func ParsePermissions(s string) (Permission, error) {
	var p Permission
	if strings.TrimSpace(s) == "" {
		return 0, nil
	}
	table := Permissions()
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		bit := Permission(0)
		for _, row := range table {
			if strings.EqualFold(row.Name, name) {
				bit = row.Permission
			}
		}
		if bit == 0 {
			return 0, fmt.Errorf("permission %q is unknown; expected some of %s, separated by commas", clip(name), AllPermissions)
		}
		p |= bit
	}
	return p, nil
}

// MarshalText writes the form of String, so that JSON shows names, not bits.
func (p Permission) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the form of ParsePermissions.
func (p *Permission) UnmarshalText(text []byte) error {
	q, err := ParsePermissions(string(text))
	if err != nil {
		return err
	}
	*p = q
	return nil
}
