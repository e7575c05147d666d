// Package device serves devices and modules over MQTT 3.1.1, as IoT Hub does:
// the topics are endpoints with a fixed grammar, not the subjects of a broker.
//
// [Handler.ServeHTTP] takes WebSocket handshakes and [Handler.ServeConn]
// connections whose TLS handshake is done; both give the connection to a
// goroutine of the handler's own, one per connection. It reads, calls the
// engine, and gathers its answers into one write per read. What the hub sends
// to a device goes through an outbox: whoever finds the connection idle
// starts a write, others append, and a device that does not read is closed
// when its outbox is full. No connection owns a second goroutine, a channel
// or, while idle, a buffer.
//
// Every rule about devices is the engine's; this package translates.
package device
