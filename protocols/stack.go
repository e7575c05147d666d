package protocols

import "runtime"

// handshakeStack is about what a TLS handshake and the first packets behind it take of a
// goroutine's stack, in bytes.
const handshakeStack = 10 << 10

// growStack makes room for that at once. A goroutine's stack begins small, and is copied
// to twice its size as often as it must be, with all frames that lie on it by then; here it is
// nearly empty. It shrinks again, or goes with the goroutine.
//
//go:noinline
func growStack() {
	var frame [handshakeStack]byte
	runtime.KeepAlive(&frame)
}
