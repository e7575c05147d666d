package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/muster-hub/muster/engine/auth"
)

// maxUploadAnswer is how much of an answer to a step of an upload is read.
const maxUploadAnswer = 64 << 10

// Uploads sends files of devices to a hub, over HTTPS as devices do whatever they
// speak otherwise. It is safe for concurrent use by any number of devices.
type Uploads struct {
	http *http.Client
}

// NewUploads makes one for the hub at address, HOST:PORT. roots may be nil for the
// system's, dial for the usual way.
func NewUploads(address string, roots *x509.CertPool, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Uploads {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &Uploads{http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 8, MaxConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, address) },
	}}}
}

// Close drops idle connections.
func (u *Uploads) Close() { u.http.CloseIdleConnections() }

// Upload sends a file of a device, in one go: it asks where to, sends the content
// and says so. The file is there when it returns nil.
func (u *Uploads) Upload(ctx context.Context, device auth.ConnectionString, name string, content []byte) error {
	key, err := device.SharedAccessKey.Bytes()
	if err != nil {
		return err
	}
	resource := device.HostName + "/devices/" + device.DeviceID
	token := auth.SignToken(resource, key, "", time.Now().Add(tokenLifetime))
	base := "https://" + device.HostName + "/devices/" + url.PathEscape(device.DeviceID) + "/files"
	own := http.Header{"Authorization": {token}, "Content-Type": {"application/json"}}
	var where struct{ CorrelationID, HostName, ContainerName, BlobName, SASToken string }
	if err := u.step(ctx, http.MethodPost, base+"?api-version="+apiVersion, own, map[string]string{"blobName": name}, &where); err != nil {
		return fmt.Errorf("begin the upload: %w", err)
	}
	sent := u.send(ctx, "https://"+where.HostName+"/"+where.ContainerName+"/"+where.BlobName+where.SASToken, content)
	status := http.StatusOK
	if sent != nil {
		status = http.StatusInternalServerError
	}
	err = u.step(ctx, http.MethodPost, base+"/notifications?api-version="+apiVersion, own, map[string]any{
		"correlationId": where.CorrelationID, "isSuccess": sent == nil, "statusCode": status, "statusDescription": http.StatusText(status),
	}, nil)
	if sent != nil {
		return fmt.Errorf("send the content: %w", sent)
	}
	if err != nil {
		return fmt.Errorf("end the upload: %w", err)
	}
	return nil
}

func (u *Uploads) send(ctx context.Context, address string, content []byte) error {
	return u.do(ctx, http.MethodPut, address, http.Header{"X-Ms-Blob-Type": {"BlockBlob"}}, content, nil)
}

func (u *Uploads) step(ctx context.Context, method, address string, header http.Header, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return u.do(ctx, method, address, header, text, into)
}

func (u *Uploads) do(ctx context.Context, method, address string, header http.Header, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header = header
	res, err := u.http.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxUploadAnswer))
	switch {
	case err != nil:
		return err
	case res.StatusCode >= 300:
		return &Error{Status: res.StatusCode, Message: fmt.Sprintf("%.200s", answer)}
	case into == nil:
		return nil
	}
	return json.Unmarshal(answer, into)
}
