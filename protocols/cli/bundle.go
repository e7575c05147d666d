package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

// Bounds of a bundle. A part that is larger is cut, and says so.
const (
	bundlePart  = 4 << 20
	bundleFiles = 5000 // lines of the listing
	bundleEnds  = 200  // devices whose newest connection is described
	bundleTime  = 30 * time.Second
)

// bundle collects what somebody needs who looks at a hub from afar. Parts are
// named and text, but for the profiles; every text is cleaned of secrets.
type bundle struct {
	a     *app
	clean *redactor
	now   time.Time
	parts []bundlePartOf
}

type bundlePartOf struct {
	name string
	data []byte
}

// writeBundle writes the bundle of a hub (s is nil when none runs) to file.
// What can't be had is named in errors.txt, and the rest is there all the same.
func (a *app) writeBundle(ctx context.Context, s *client.Service, h HubFlags, findings []Finding, file string) error {
	to, err := createFile(file, false, takenNext) // nobody waits for nothing
	if err != nil {
		return err
	}
	defer to.drop()
	ctx, stop := context.WithTimeout(ctx, bundleTime)
	defer stop()
	b := &bundle{a: a, clean: newRedactor(), now: time.Now()}
	b.learn(ctx, s, h)
	b.json("doctor.json", findings)
	b.json("version.json", b.version())
	var missing []string
	try := func(name string, err error) {
		if err != nil {
			missing = append(missing, name+": "+err.Error())
		}
	}
	if h.Hub == "" {
		try("files.txt", b.listing(h.Data))
	}
	if s != nil {
		for _, part := range []struct {
			name, path string
			local      bool
		}{
			{"hub.json", "/api/v1/hub", false},
			{"metrics.txt", "/metrics", false},
			{"config.json", "/debug/config", true},
			{"log.txt", "/debug/log", true},
			{"goroutines.txt", "/debug/pprof/goroutine?debug=2", true},
			{"heap.pprof", "/debug/pprof/heap", true},
		} {
			if part.local && h.Hub != "" {
				continue
			}
			try(part.name, b.fetch(ctx, s, part.name, part.path))
		}
		try("status.json", b.status(ctx, s))
		try("connections.json", b.connections(ctx, s))
	}
	if len(missing) > 0 {
		b.text("errors.txt", []byte(strings.Join(missing, "\n")+"\n"))
	}
	return b.write(to)
}

// learn tells the redactor what is secret: the files of keys, and the keys of
// policies. Keys of devices are found by their looks.
func (b *bundle) learn(ctx context.Context, s *client.Service, h HubFlags) {
	if h.Hub == "" {
		b.clean.learnData(h.Data)
	}
	if s == nil {
		return
	}
	if list, err := s.Policies(ctx); err == nil {
		for _, p := range list {
			b.clean.learn([]byte(p.PrimaryKey))
			b.clean.learn([]byte(p.SecondaryKey))
		}
	}
	if h.Hub != "" {
		return
	}
	config := hubSettings(ctx, s)
	for _, flag := range []string{"metrics-token-file", "master-key-file", "key", "backup-passphrase-file"} {
		if file, ok := config[flag].(string); ok && file != "" {
			b.clean.learnFile(file)
		}
	}
}

// hubSettings are the settings that the hub on this machine runs with, by flag;
// nil when it does not tell.
func hubSettings(ctx context.Context, s *client.Service) map[string]any {
	var config map[string]any
	if err := s.Do(ctx, client.Request{Method: http.MethodGet, Path: "/debug/config"}, &config); err != nil {
		return nil
	}
	return config
}

func (b *bundle) version() any {
	build := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		build["go"] = info.GoVersion
		for _, s := range info.Settings {
			build[s.Key] = s.Value
		}
	}
	kernel, err := os.ReadFile("/proc/version")
	if err != nil {
		kernel = nil
	}
	return map[string]any{
		"command": b.a.hooks.Version, "build": build, "os": runtime.GOOS, "arch": runtime.GOARCH, "processors": runtime.NumCPU(),
		"kernel": strings.TrimSpace(string(kernel)), "time": b.now.UTC(),
	}
}

// text adds a part, cleaned and bounded.
func (b *bundle) text(name string, data []byte) {
	if len(data) > bundlePart {
		data = append(data[:bundlePart:bundlePart], "\n[cut here: the part was larger]\n"...)
	}
	b.parts = append(b.parts, bundlePartOf{name, b.clean.clean(data)})
}

func (b *bundle) json(name string, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		data = []byte(err.Error())
	}
	b.text(name, append(data, '\n'))
}

func (b *bundle) fetch(ctx context.Context, s *client.Service, name, path string) error {
	var data json.RawMessage
	path, query, _ := strings.Cut(path, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	if err := s.Do(ctx, client.Request{Method: http.MethodGet, Path: path, Query: q}, &data); err != nil {
		return err
	}
	if strings.HasSuffix(name, ".pprof") { // names of functions and numbers, packed
		if len(data) > bundlePart {
			return fmt.Errorf("%d bytes are too many", len(data))
		}
		b.parts = append(b.parts, bundlePartOf{name, data})
		return nil
	}
	b.text(name, data)
	return nil
}

// status adds the status without what users store: their properties are none
// of the reader's business.
func (b *bundle) status(ctx context.Context, s *client.Service) error {
	var status map[string]any
	if err := s.Do(ctx, client.Request{Method: http.MethodGet, Path: "/api/v1/status"}, &status); err != nil {
		return err
	}
	if recent, ok := status["recent"].([]any); ok {
		for _, change := range recent {
			if m, ok := change.(map[string]any); ok {
				delete(m, "data")
			}
		}
	}
	b.json("status.json", status)
	return nil
}

// connections adds how the newest connection of some devices ended.
func (b *bundle) connections(ctx context.Context, s *client.Service) error {
	list := []any{}
	for d, err := range s.FirstDevices(ctx, "", bundleEnds) {
		if err != nil {
			return err
		}
		for end, err := range s.Connections(ctx, d.DeviceID, "") {
			if err != nil {
				return err
			}
			list = append(list, map[string]any{"device": d.DeviceID, "last": end})
			break
		}
	}
	b.json("connections.json", list)
	return nil
}

// listing adds names, sizes and rights of the data directory's files.
func (b *bundle) listing(dir string) error {
	var out bytes.Buffer
	lines, skipped := 0, 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // files come and go
			return nil
		case err != nil:
			return err
		case lines >= bundleFiles:
			skipped++
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // gone in the meantime
		}
		lines++
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %12d %s %s\n", info.Mode(), info.Size(), info.ModTime().UTC().Format(time.RFC3339), name)
		return nil
	})
	if skipped > 0 {
		fmt.Fprintf(&out, "and %d more\n", skipped)
	}
	b.text("files.txt", out.Bytes())
	return err
}

// write makes the archive, whole or not at all.
func (b *bundle) write(f *newFile) error {
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	dir := "muster-" + b.now.UTC().Format("20060102-150405") + "/"
	for _, p := range b.parts {
		err := archive.WriteHeader(&tar.Header{Name: dir + p.name, Mode: 0o600, Size: int64(len(p.data)), ModTime: b.now, Format: tar.FormatPAX})
		if err == nil {
			_, err = archive.Write(p.data)
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(archive.Close(), zip.Close()); err != nil {
		return err
	}
	if _, err := f.Write(out.Bytes()); err != nil {
		return err
	}
	if err := f.keep(); err != nil {
		return err
	}
	b.a.note("%d bytes written to %s. Keys and tokens are left out; names of devices and addresses are not: look before you pass it on.", out.Len(), printable(f.to))
	return nil
}
