// Package wire speaks MQTT 3.1.1 over TCP, TLS and WebSocket, for both ends
// of a connection. It knows packets and byte streams, and nothing of devices.
//
// # Packets
//
// [Reader] takes a byte stream apart into [Packet] values, however the bytes
// were split on their way; [Decode] does the same for one packet in memory.
// Lengths are checked against a limit before anything is allocated. The
// Append functions ([AppendConnect], [AppendPublish], ...) write packets
// behind what a buffer already holds. [Buffers] is a pool that both sides
// borrow from only while bytes are pending.
//
// # Streams
//
// [Stream] is a net.Conn over a TCP or TLS connection or over the binary
// frames of a WebSocket: [NewStream] wraps a connection, [Accept] answers a
// WebSocket handshake, [Dial] and [DialWebSocket] open one as a client.
//
// A client in short:
//
//	st, err := wire.DialWebSocket(ctx, "wss://hub.example/$iothub/websocket", wire.DialOptions{TLS: cfg})
//	rd := wire.NewReader(st, wire.NewBuffers(), 1<<20)
//	b, err := wire.AppendConnect(nil, &wire.Connect{ClientID: "d", Username: user, Password: token, KeepAlive: 60})
//	_, err = st.Write(b)
//	var p wire.Packet
//	err = rd.ReadPacket(&p) // p.Type == wire.TypeConnack; p.Code, p.SessionPresent
//
// This package is the only importer of the MQTT codec and of the WebSocket
// library.
package wire
