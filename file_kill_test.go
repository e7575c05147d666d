package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/protocols/client"
)

// TestKilledHubKeepsFiles kills a hub (SIGKILL) again and again while devices
// upload files of several blocks. After each start every file that was
// acknowledged is there with its content, and an upload whose blocks were
// acknowledged goes on with them. At the end the store verifies.
func TestKilledHubKeepsFiles(t *testing.T) {
	t.Parallel()
	const devices, rounds = 4, 3
	binary, data := program(t), filepath.Join(t.TempDir(), "data")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	stop := startHub(t, binary, data)
	service := localService(t, data)
	var list []*fileDevice
	for i := range devices {
		d := &fileDevice{id: fmt.Sprintf("uploader-%d", i), kept: map[string]string{}}
		if _, err := service.CreateIdentity(t.Context(), client.Identity{DeviceID: d.id}); err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var acked atomic.Int64
		for _, d := range list {
			d.connect(t, service, data)
			wg.Go(func() {
				for n := 0; d.upload(ctx, fmt.Sprintf("round-%d/%d", round, n%7), &acked); n++ {
				}
			})
		}
		enough := int64(15 + random.IntN(60))
		for deadline := time.Now().Add(60 * time.Second); acked.Load() < enough; {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: %d answers in 60 s", round, acked.Load())
			}
			<-time.After(5 * time.Millisecond)
		}
		stop()
		cancel()
		wg.Wait()
		stop = startHub(t, binary, data)
		service = localService(t, data)
		for _, d := range list {
			d.connect(t, service, data)
			d.check(t, service)
		}
		t.Logf("round %d: killed after %d answers", round, acked.Load())
	}
	stop()
	if out, err := exec.CommandContext(t.Context(), binary, "verify", "--data", data).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// fileDevice is a device and what it knows to be stored.
type fileDevice struct {
	id, base, token string
	web             *http.Client

	kept    map[string]string // name -> SHA-256 of what was acknowledged
	unsure  map[string]string // what was sent, and whose last answer never came
	pending *pendingUpload
}

// pendingUpload is an upload whose first blocks were acknowledged.
type pendingUpload struct {
	name, id, address string
	blocks            [][]byte
	acked             int
}

func (d *fileDevice) connect(t *testing.T, service *client.Service, data string) {
	t.Helper()
	text, err := service.IdentityConnectionString(t.Context(), d.id, "", "primary")
	if err != nil {
		t.Fatal(err)
	}
	cs, err := auth.ParseConnectionString(text)
	if err != nil {
		t.Fatal(err)
	}
	key, err := cs.SharedAccessKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	hub, err := service.Hub(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(data, "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, l := range hub.Listeners {
		if l.Kind == "https" {
			d.base = "https://" + l.Address
		}
	}
	d.token = auth.SignToken(cs.HostName+"/devices/"+d.id, key, "", time.Now().Add(time.Hour))
	d.web = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: cs.HostName}}, Timeout: 30 * time.Second}
}

// do sends a request and reports whether it was answered with the status.
func (d *fileDevice) do(ctx context.Context, method, address string, body []byte, status int, into any) bool {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return false
	}
	r.Header.Set("Authorization", d.token)
	w, err := d.web.Do(r)
	if err != nil {
		return false
	}
	defer w.Body.Close()
	answer, err := io.ReadAll(w.Body)
	if err != nil || w.StatusCode != status {
		return false
	}
	return into == nil || json.Unmarshal(answer, into) == nil
}

const fileVersion = "?api-version=2021-04-12"

// upload sends one file; it reports false when the hub is gone.
func (d *fileDevice) upload(ctx context.Context, name string, acked *atomic.Int64) bool {
	var a struct{ CorrelationID, ContainerName, BlobName, SASToken string }
	if !d.do(ctx, http.MethodPost, d.base+"/devices/"+d.id+"/files"+fileVersion, fmt.Appendf(nil, `{"blobName":%q}`, name), 200, &a) {
		return false
	}
	p := &pendingUpload{name: name, id: a.CorrelationID, address: "/" + a.ContainerName + "/" + a.BlobName + a.SASToken}
	for i := range 3 {
		block := make([]byte, 20_000+rand.IntN(200_000))
		for j := range block {
			block[j] = byte(rand.Uint32())
		}
		p.blocks = append(p.blocks, block)
		if !d.sendBlock(ctx, p, i) {
			if p.acked > 0 {
				d.pending = p
			}
			return false
		}
		p.acked++
		acked.Add(1)
	}
	d.pending = p
	if !d.finish(ctx, p) {
		return false
	}
	d.pending = nil
	acked.Add(1)
	return true
}

func (d *fileDevice) sendBlock(ctx context.Context, p *pendingUpload, i int) bool {
	return d.do(ctx, http.MethodPut, d.base+p.address+"&comp=block&blockid="+blockIDOf(i), p.blocks[i], 201, nil)
}

func blockIDOf(i int) string {
	return base64.StdEncoding.EncodeToString([]byte{'b', 'l', byte('0' + i)})
}

// finish commits the blocks and notifies the hub; both may be told again.
func (d *fileDevice) finish(ctx context.Context, p *pendingUpload) bool {
	var list strings.Builder
	sum := sha256.New()
	for i, b := range p.blocks {
		list.WriteString("<Latest>" + blockIDOf(i) + "</Latest>")
		sum.Write(b)
	}
	// When its last word was sent already, the upload may have ended.
	if d.unsure == nil && !d.do(ctx, http.MethodPut, d.base+p.address+"&comp=blocklist", []byte("<BlockList>"+list.String()+"</BlockList>"), 201, nil) {
		return false
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	d.unsure = map[string]string{p.name: digest}
	if !d.do(ctx, http.MethodPost, d.base+"/devices/"+d.id+"/files/notifications/"+p.id+fileVersion, []byte(`{"isSuccess":true,"statusCode":201,"statusDescription":""}`), 204, nil) {
		return false
	}
	d.kept[p.name], d.unsure = digest, nil
	return true
}

// check looks for what was acknowledged, and brings the upload that the kill
// interrupted to its end.
func (d *fileDevice) check(t *testing.T, service *client.Service) {
	t.Helper()
	for name, want := range d.kept {
		sum := sha256.New()
		if _, err := service.DownloadFile(t.Context(), d.id, name, sum); err != nil {
			t.Errorf("%s: %s: %v", d.id, name, err)
			continue
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != want && got != d.unsure[name] {
			t.Errorf("%s: %s has the SHA-256 %s, acknowledged was %s", d.id, name, got, want)
		}
	}
	p := d.pending
	if d.pending = nil; p == nil {
		return
	}
	if d.unsure == nil { // else the list was committed, and the blocks are no more
		for i := p.acked; i < len(p.blocks); i++ {
			if !d.sendBlock(t.Context(), p, i) {
				t.Errorf("%s: block %d of an upload from before is refused", d.id, i)
				return
			}
		}
	}
	if !d.finish(t.Context(), p) {
		t.Errorf("%s: the upload of %s, %d blocks of which were acknowledged, can't be finished", d.id, p.name, p.acked)
		return
	}
	sum := sha256.New()
	if _, err := service.DownloadFile(t.Context(), d.id, p.name, sum); err != nil || hex.EncodeToString(sum.Sum(nil)) != d.kept[p.name] {
		t.Errorf("%s: %s is not what was sent before and after the kill: %v", d.id, p.name, err)
	}
}
