package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// bareCommand is the child of idle: a TLS server that does nothing else. It
// accepts, does the handshake and reads until the client goes.
func bareCommand(ctx context.Context, args []string, stdout io.Writer) error {
	f := flag.NewFlagSet("bare", flag.ContinueOnError)
	file := f.String("certificate", "", "PEM file with the certificate and its key")
	if err := f.Parse(args); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*file, *file)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, l.Addr())
	go func() {
		<-ctx.Done()
		_ = l.Close()
	}()
	var serving sync.WaitGroup
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			return err
		}
		serving.Go(func() {
			defer c.Close()
			_, _ = io.Copy(io.Discard, c) // the first read does the handshake
		})
	}
	serving.Wait()
	return nil
}

// bare is a running bareCommand.
type bare struct {
	process *exec.Cmd
	address string
}

// startBare serves the hub's own ECDSA certificate, so that the handshake is
// the hub's.
func startBare(ctx context.Context, h *hub) (*bare, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bare{process: exec.CommandContext(ctx, self, "bare", "-certificate", filepath.Join(h.data, "tls", "server-ecdsa.pem"))}
	out, err := b.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.process.Stderr = os.Stderr
	if err := b.process.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.stop()
		return nil, fmt.Errorf("the bare TLS server did not say where it listens: %w", err)
	}
	b.address = strings.TrimSpace(line)
	return b, nil
}

func (b *bare) stop() {
	_ = b.process.Process.Kill()
	_ = b.process.Wait()
}

// perAccept connects n times, as connectIdle does, and returns what an accept
// costs the server.
func (b *bare) perAccept(ctx context.Context, h *hub, n int) (time.Duration, error) {
	before, err := cpuOf(b.process.Process.Pid)
	if err != nil {
		return 0, err
	}
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	err = inParallel(ctx, n, func(ctx context.Context, i int) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.address)
		if err != nil {
			return err
		}
		conns[i] = c
		secure := tls.Client(c, h.tls())
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		// The server's end of the handshake: its session ticket has been sent.
		_, err = secure.Write([]byte("x"))
		return err
	})
	if err != nil {
		return 0, err
	}
	pause(ctx, 200*time.Millisecond)
	after, err := cpuOf(b.process.Process.Pid)
	return (after - before) / time.Duration(n), err
}
