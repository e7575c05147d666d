package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// mosquitto is a broker of its own on a free port of the loopback, with a
// certificate of the hub's type (ECDSA P-256) and no persistence.
type mosquitto struct {
	version string
	process *exec.Cmd
	address string
	roots   *x509.CertPool
	remove  func()
}

const mosquittoSettings = `listener %s 127.0.0.1
certfile %s
keyfile %s
allow_anonymous true
persistence false
log_type error
set_tcp_nodelay true
user %s
`

func startMosquitto(ctx context.Context, h *hub) (_ *mosquitto, err error) {
	const program = "/usr/sbin/mosquitto"
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("no Mosquitto: apt-get install mosquitto (run.sh does it), or -mosquitto=false: %w", err)
	}
	dir, remove, err := workDirectory(filepath.Dir(h.data))
	if err != nil {
		return nil, err
	}
	m := &mosquitto{remove: remove, roots: x509.NewCertPool()}
	defer func() {
		if err != nil {
			m.stop()
		}
	}()
	help, _ := exec.CommandContext(ctx, program, "-h").Output() // it exits with 3
	_, m.version, _ = strings.Cut(strings.SplitN(string(help), "\n", 2)[0], "version ")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m.address = l.Addr().String()
	_ = l.Close()
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := m.certify(certificate, key); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(m.address)
	settings := filepath.Join(dir, "mosquitto.conf")
	owner := os.Getenv("USER")
	if os.Geteuid() == 0 { // it would give up the rights to read its key
		owner = "root"
	}
	if err := os.WriteFile(settings, fmt.Appendf(nil, mosquittoSettings, port, certificate, key, owner), 0o600); err != nil {
		return nil, err
	}
	m.process = exec.CommandContext(ctx, program, "-c", settings)
	m.process.Stdout, m.process.Stderr = os.Stderr, os.Stderr
	m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		dialer := tls.Dialer{Config: m.as(h).tls()}
		c, err := dialer.DialContext(ctx, "tcp", m.address)
		if err == nil {
			return m, c.Close()
		}
		pause(ctx, 25*time.Millisecond)
	}
	return nil, errors.New("mosquitto does not answer within 5 s")
}

// certify makes a certificate for hostName that signs itself.
func (m *mosquitto) certify(certificate, key string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: hostName}, DNSNames: []string{hostName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	m.roots.AppendCertsFromPEM(text)
	return errors.Join(os.WriteFile(certificate, text, 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// as is what a device needs to know to connect here as to the hub.
func (m *mosquitto) as(h *hub) *hub {
	return &hub{options: h.options, mqtts: m.address, roots: m.roots}
}

func (m *mosquitto) stop() {
	if m.process != nil && m.process.Process != nil {
		_ = m.process.Process.Kill()
		_ = m.process.Wait()
	}
	m.remove()
}
