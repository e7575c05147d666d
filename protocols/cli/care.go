package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type doctorCmd struct {
	HubFlags
	OutputFlags
	Bundle string `help:"Also write what somebody needs who looks from afar: findings, log, metrics, profiles, files; secrets are left out." placeholder:"FILE.tar.gz"`
}

// Run looks at a running hub, or at the data directory when none runs.
func (c *doctorCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	found, err := s.Doctor(ctx)
	_, unreached := errors.AsType[*client.ConnectError](err)
	switch {
	case err == nil:
		findings := []Finding{{Check: "hub", Level: "ok", Text: "A hub answers at " + s.Target() + "."}}
		for _, f := range found {
			findings = append(findings, Finding(f))
		}
		if c.Hub == "" {
			var inside []Finding
			if err := s.Do(ctx, client.Request{Method: http.MethodGet, Path: "/debug/findings"}, &inside); err != nil {
				a.note("The hub did not look at its own process: %v", err)
			}
			findings = append(findings, inside...)
			if findings, err = a.examineMachine(findings, c.Data); err != nil {
				return err
			}
			if cert, _ := hubSettings(ctx, s)["cert"].(string); cert == "" { // else its own, if it has any, are not in use
				findings = append(findings, checkCertificates(c.Data, time.Now())...)
			}
		}
		findings = append(findings, a.checkListeners(ctx, s, c.HubFlags)...)
		return a.finishDoctor(c, s, findings)
	case !unreached || c.Hub != "" || a.hooks.DoctorOffline == nil:
		return err
	}
	a.note("No hub runs with %s; looking at the data directory.", c.Data)
	list, err := a.hooks.DoctorOffline(a.ctx, StoreFlags{Data: c.Data}, a.io)
	if err != nil {
		return err
	}
	if list, err = a.examineMachine(list, c.Data); err != nil {
		return err
	}
	return a.finishDoctor(c, nil, append(list, checkCertificates(c.Data, time.Now())...))
}

func (a *app) examineMachine(list []Finding, data string) ([]Finding, error) {
	if a.hooks.DoctorMachine == nil {
		return list, nil
	}
	more, err := a.hooks.DoctorMachine(a.ctx, StoreFlags{Data: data}, a.io)
	return append(list, more...), err
}

// finishDoctor prints the findings, and writes the bundle first: it is wanted
// most when a finding is bad.
func (a *app) finishDoctor(c *doctorCmd, s *client.Service, list []Finding) error {
	if c.Bundle != "" {
		if err := a.writeBundle(a.ctx, s, c.HubFlags, list, c.Bundle); err != nil {
			return err
		}
	}
	return a.printFindings(c.OutputFlags, list)
}

// checkCertificates looks at the days that a hub's own certificates have left.
func checkCertificates(data string, now time.Time) []Finding {
	var list []Finding
	files, err := filepath.Glob(filepath.Join(data, "tls", "*.pem"))
	if err != nil {
		return nil
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // keys are for the hub's user alone
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			list = append(list, Finding{"certificate", "fail", name + " holds no valid certificate.", "Remove it; the hub makes it again at the next start."})
			continue
		}
		days := int(cert.NotAfter.Sub(now).Hours() / 24)
		f := Finding{Check: "certificate", Level: "ok", Text: fmt.Sprintf("%s is valid for %d days.", filepath.Base(name), days)}
		switch {
		case days < 0:
			f.Level, f.Next = "fail", "Restart the hub: it renews its own certificates."
		case days < 14:
			f.Level, f.Next = "warn", "Restart the hub: it renews its own certificates."
		}
		list = append(list, f)
	}
	return list
}

// refusedHandshake says why a handshake with a listener failed. A certificate
// of an authority that only this machine does not know is no fault of the hub.
func refusedHandshake(kind, address, host string, err error, now time.Time) Finding {
	e, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(e.UnverifiedCertificates) == 0 {
		return Finding{kind, "fail", address + " does not complete a TLS handshake: " + err.Error() + ".", "Look at the hub's log."}
	}
	leaf := e.UnverifiedCertificates[0]
	switch _, unknown := errors.AsType[x509.UnknownAuthorityError](err); {
	case leaf.VerifyHostname(host) != nil:
		return Finding{kind, "fail", address + " answers with a certificate that is not for " + host + ".", "Give --cert a certificate that holds every --host."}
	case now.After(leaf.NotAfter):
		return Finding{kind, "fail", address + " answers with a certificate that ended on " + leaf.NotAfter.UTC().Format(time.DateOnly) + ".", "Put a new certificate into the files of --cert and --key, or look in the hub's log why it could not be renewed."}
	case unknown:
		return Finding{kind, "warn", fmt.Sprintf("%s answers as %s, with a certificate by %q that this machine does not trust.", address, host, leaf.Issuer.String()), "Clients need the certificate of that authority; `muster doctor --ca FILE` looks with it."}
	default:
		return Finding{kind, "fail", address + " answers with a certificate that cannot be verified: " + err.Error() + ".", "Replace the files of --cert and --key."}
	}
}

// checkListeners makes one TLS handshake with each listener that the hub names.
func (a *app) checkListeners(ctx context.Context, s *client.Service, h HubFlags) []Finding {
	hub, err := s.Hub(ctx)
	if err != nil || h.Hub != "" {
		return nil
	}
	pool, err := localCA(h)
	if err != nil {
		pool = nil
	}
	var list []Finding
	for _, l := range hub.Listeners {
		if l.Kind != "https" && l.Kind != "mqtts" {
			continue
		}
		d := tls.Dialer{Config: &tls.Config{ServerName: hub.Name, RootCAs: pool, MinVersion: tls.VersionTLS12}}
		dctx, stop := context.WithTimeout(ctx, 3*time.Second)
		conn, err := d.DialContext(dctx, "tcp", loopback(l.Address))
		stop()
		if err != nil {
			list = append(list, refusedHandshake(l.Kind, l.Address, hub.Name, err, time.Now()))
			continue
		}
		found := Finding{Check: l.Kind, Level: "ok", Text: l.Address + " answers as " + hub.Name + "."}
		if secure, ok := conn.(*tls.Conn); ok {
			end := secure.ConnectionState().PeerCertificates[0].NotAfter
			found.Text = fmt.Sprintf("%s answers as %s, with a certificate that is valid for %d days.", l.Address, hub.Name, int(time.Until(end).Hours()/24))
			if time.Until(end) < 7*24*time.Hour {
				found.Level, found.Next = "warn", "Put a new certificate into the files of --cert and --key, or look in the hub's log why it could not be renewed."
			}
		}
		_ = conn.Close() // only tried
		list = append(list, found)
	}
	return list
}

func (a *app) printFindings(o OutputFlags, list []Finding) error {
	sh := &sheet{columns: []string{"LEVEL", "CHECK", "FINDING"}, empty: "Nothing to report."}
	bad := 0
	for _, f := range list {
		text := f.Text
		if f.Next != "" && f.Level != "ok" && o.Output == "table" {
			if !strings.ContainsAny(text[max(len(text)-1, 0):], ".!?") { // texts of errors have no end
				text += "."
			}
			text += " Next: " + f.Next
		}
		sh.add(f, f.Level, f.Check, text)
		if f.Level == "fail" {
			bad++
		}
	}
	if err := a.print(o, sh); err != nil {
		return err
	}
	if bad > 0 {
		return &problem{exit: ExitFailed, what: fmt.Sprintf("%d of %d checks failed", bad, len(list)), next: "Each failed line says what to do."}
	}
	return nil
}

type verifyCmd struct {
	StoreFlags
	OutputFlags
	Acks    string `help:"Instead look up everything that this log of muster simulate --ack-log says was acknowledged: in the hub that --hub names or that runs with --data, or else in the directory." placeholder:"FILE"`
	Until   uint64 `help:"With --acks: only what was acknowledged for certain up to this sequence, such as a backup names." placeholder:"SEQUENCE"`
	Partial bool   `help:"With --acks: take a log that is not whole, such as that of a simulator that was killed."`
	RemoteHub
}

// Run verifies a data directory, or a running hub against a log.
func (c *verifyCmd) Run(a *app) error {
	if c.Acks != "" {
		return c.verifyAcks(a)
	}
	if c.Until != 0 || c.Partial {
		return usage("--until and --partial belong to --acks", "Give --acks FILE with them.")
	}
	// In the environment or the config file they are for the commands that ask a hub.
	if flag := a.given("hub", "ca", "port"); flag != "" {
		return usage(flag+" belongs to --acks: without, verify reads the files of a directory, which no hub shows", "Leave it out, and run verify on the hub's machine with --data DIR; or give --acks FILE.")
	}
	if a.hooks.Verify == nil {
		return notBuilt("verify")
	}
	r, err := a.hooks.Verify(a.ctx, c.StoreFlags, a.io)
	if err != nil {
		return err
	}
	return a.printReport(c.OutputFlags, r)
}

type repairCmd struct {
	StoreFlags
	OutputFlags
	Yes bool `short:"y" help:"Don't ask."`
}

// Run repairs a data directory.
func (c *repairCmd) Run(a *app) error {
	if a.hooks.Repair == nil {
		return notBuilt("repair")
	}
	if err := a.confirm(c.Yes, fmt.Sprintf("Repair %s? What cannot be read is cut off; copy the directory first.", c.Data)); err != nil {
		return err
	}
	r, err := a.hooks.Repair(a.ctx, c.StoreFlags, a.io)
	if err != nil {
		return err
	}
	return a.printReport(c.OutputFlags, r)
}

func (a *app) printReport(o OutputFlags, r Report) error {
	err := a.printFindings(o, r.Findings)
	if r.Took > 0 && o.Output == "table" {
		a.note("Took %s.", r.Took.Round(time.Millisecond))
	}
	if err == nil && !r.OK {
		return &problem{exit: ExitFailed, what: "the data directory is damaged", next: "The findings say what is lost; `muster repair` mends what can be mended."}
	}
	return err
}

func notBuilt(name string) error {
	return &problem{exit: ExitFailed, what: "this build has no " + name, next: "Use the full muster binary."}
}
