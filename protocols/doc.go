// Package protocols is the hub's front door: it opens the listeners, keeps the
// certificates, decides how many strangers may knock at once, routes requests
// to the edges (device, service, console), answers health and metrics, and
// closes everything in the right order.
//
// It decides nothing about devices: that is the engine's.
package protocols
