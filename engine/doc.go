// Package engine is the hub: every rule about device identities, module
// identities, twins, sessions, direct methods and shared access policies, each
// change as one transaction.
//
// Edges (the packages under protocols) translate bytes into calls of Hub and
// Session and map *Error back; they never decide. What flows toward a device
// goes through the Outbox that its edge supplied at Connect, and never blocks
// the hub. An exported method checks the caller and opens the transaction; an
// unexported one whose name ends in Tx composes in it.
package engine
