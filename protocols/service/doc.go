// Package service is the REST edge of a hub: IoT Hub's service API on IoT
// Hub's paths and in IoT Hub's shapes, and Muster's own API under /api/v1.
//
// The package translates and never decides: every request becomes one call on
// engine.Hub, which owns permissions and rules. One table of routes drives
// matching, metric labels and the OpenAPI document, so that none of them can
// differ from what is served.
//
// IoT Hub's paths answer errors as IoT Hub does, see shape; Muster's own
// answer problem+json (RFC 9457).
package service
