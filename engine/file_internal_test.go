package engine

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/muster-hub/muster/engine/auth"
	"github.com/muster-hub/muster/storage"
)

// uploader is a hub with the device d, whose limits a test may change.
type uploader struct {
	*testing.T
	*Hub
	dir string
	c   Caller
	g   Grant
}

func newUploader(t *testing.T) *uploader {
	t.Helper()
	u := &uploader{T: t, dir: t.TempDir()}
	u.open()
	t.Cleanup(func() { _ = u.Close() }) // a test may have closed it
	return u
}

func (u *uploader) open() {
	u.Helper()
	h, err := Open(u.T.Context(), Options{Storage: storage.Options{Dir: u.dir, Memory: 64 << 20}, FileNotifications: true})
	if err != nil {
		u.Fatal(err)
	}
	u.Hub, u.c = h, Caller{Principal: auth.Principal{Permissions: ^auth.Permission(0)}}
	u.g = u.device("d")
}

func (u *uploader) device(id string) Grant {
	u.Helper()
	i, err := u.CreateIdentity(u.T.Context(), u.c, Identity{DeviceID: id})
	if err != nil && AsError(err).Code == CodeDeviceAlreadyExists {
		i, err = u.Identity(u.T.Context(), u.c, TwinID{DeviceID: id})
	}
	if err != nil {
		u.Fatal(err)
	}
	return Grant{ID: i.ID(), GenerationID: i.GenerationID}
}

func (u *uploader) begin(g Grant, name string) (Upload, UploadGrant) {
	u.Helper()
	up, err := u.BeginUpload(u.T.Context(), g, name)
	if err != nil {
		u.Fatal(err)
	}
	return up, u.authorize(up)
}

func (u *uploader) authorize(up Upload) UploadGrant {
	u.Helper()
	query, err := url.ParseQuery(strings.TrimPrefix(up.Token, "?"))
	if err != nil {
		u.Fatal(err)
	}
	token, err := auth.ParseUploadToken(query)
	if err != nil {
		u.Fatal(err)
	}
	g, err := u.AuthorizeUpload(u.T.Context(), token, up.Blob)
	if err != nil {
		u.Fatal(err)
	}
	return g
}

func body(content []byte) UploadBody {
	return UploadBody{Reader: bytes.NewReader(content), Size: int64(len(content))}
}

func (u *uploader) put(g UploadGrant, content []byte) {
	u.Helper()
	s, err := u.PutUpload(u.T.Context(), g, body(content))
	if sum := sha256.Sum256(content); err != nil || s.Digest != hex.EncodeToString(sum[:]) || s.Size != int64(len(content)) {
		u.Fatalf("put: %+v, %v", s, err)
	}
}

func (u *uploader) complete(g Grant, id string, success bool) error {
	return u.CompleteUpload(u.T.Context(), g, id, UploadOutcome{Success: success, StatusCode: 201})
}

// upload makes a file in one go.
func (u *uploader) upload(g Grant, name string, content []byte) {
	u.Helper()
	up, ug := u.begin(g, name)
	u.put(ug, content)
	if err := u.complete(g, up.CorrelationID, true); err != nil {
		u.Fatal(err)
	}
}

func (u *uploader) names(deviceID string) string {
	u.Helper()
	list, _, err := u.Files(u.T.Context(), u.c, deviceID, "", "", 0)
	if err != nil {
		u.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

func (u *uploader) content(deviceID, name string) []byte {
	u.Helper()
	_, r, err := u.OpenFile(u.T.Context(), u.c, deviceID, name)
	if err != nil {
		u.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		u.Fatal(err)
	}
	return data
}

func (u *uploader) sweep() {
	u.Helper()
	for range 3 {
		if err := errors.Join(u.sweepFiles(u.T.Context()), u.sweepBlobs(u.T.Context())); err != nil {
			u.Fatal(err)
		}
	}
}

// consistent sweeps and compares the counters with the records, and the
// contents on the disk with those that something refers to.
func (u *uploader) consistent() {
	u.Helper()
	u.sweep()
	var want, got [4]int64
	digests := map[string]bool{}
	err := u.db.View(u.T.Context(), func(r storage.Reader) error {
		for item, err := range fileTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			want[0]++
			want[1] += item.Value.Size
			digests[item.Value.Digest] = true
		}
		for item, err := range uploadTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			want[2]++
			want[3] += item.Value.held()
			if item.Value.Content != nil {
				digests[item.Value.Content.Digest] = true
			}
		}
		staged := int64(0)
		for item, err := range uploadBlockTable.Scan(r, storage.Range{}) {
			if err != nil {
				return err
			}
			staged += item.Value.Size
			digests[item.Value.Digest] = true
		}
		for i, name := range []string{counterFiles, counterFileBytes, counterUploads, counterStaged} {
			n, err := storage.Counter(r, name)
			if err != nil {
				return err
			}
			got[i] = n
		}
		return nil
	})
	if err != nil {
		u.Fatal(err)
	}
	t := u.FileTotals()
	if mirror := [4]int64{t.Files, t.Bytes, t.Uploads, t.Staged}; got != want || mirror != want {
		u.Errorf("the counters say %v and %v of files, bytes, uploads and bytes; the records %v", got, mirror, want)
	}
	if t.Writing != 0 || len(u.files.bodies) != 0 || u.files.bytes != 0 {
		u.Errorf("reservations are left: %+v", t)
	}
	entries, err := os.ReadDir(filepath.Join(u.dir, "blobs"))
	if err != nil {
		u.Fatal(err)
	}
	for _, e := range entries {
		if !digests[e.Name()] {
			u.Errorf("%s is on the disk, and nothing refers to it", e.Name())
		}
		delete(digests, e.Name())
	}
	if len(digests) > 0 {
		u.Errorf("contents are missing: %v", digests)
	}
}

func (u *uploader) want(code Code, err error) {
	u.Helper()
	if err == nil || AsError(err).Code != code {
		u.Errorf("got %v, want %s", err, code)
	}
}

func TestUploadBlocks(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	ctx := t.Context()
	up, g := u.begin(u.g, "a/b.bin")
	var all []byte
	var ids []string
	for i := range 5 {
		content := bytes.Repeat([]byte{byte(i)}, 100_000+i)
		id := fmt.Sprintf("block-%d", i)
		if i == 3 { // sent twice, the second counts
			if err := u.StageBlock(ctx, g, id, body([]byte("first"))); err != nil {
				t.Fatal(err)
			}
		}
		if err := u.StageBlock(ctx, g, id, body(content)); err != nil {
			t.Fatal(err)
		}
		all, ids = append(all, content...), append(ids, id)
	}
	u.want(CodeBlockUnknown, second(u.CommitBlocks(ctx, g, append(slices.Clone(ids), "none"), "", "")))
	u.want(CodeUploadIncomplete, u.complete(u.g, up.CorrelationID, true))
	u.consistent()
	s, err := u.CommitBlocks(ctx, g, ids, "text/plain", "gzip")
	if err != nil || s.Size != int64(len(all)) {
		t.Fatal(s, err)
	}
	again, err := u.CommitBlocks(ctx, g, ids, "text/plain", "gzip")
	if err != nil || again != s {
		t.Errorf("the list sent again: %+v, %v; want %+v", again, err, s)
	}
	u.want(CodeBlockUnknown, second(u.CommitBlocks(ctx, g, ids[1:], "text/plain", "gzip")))
	u.consistent()
	for range 2 { // told twice
		if err := u.complete(u.g, up.CorrelationID, true); err != nil {
			t.Fatal(err)
		}
	}
	f, err := u.File(ctx, u.c, "d", "a/b.bin")
	if err != nil || f.ContentType != "text/plain" || f.Encoding != "gzip" || !bytes.Equal(u.content("d", "a/b.bin"), all) {
		t.Errorf("%+v, %v, or other content", f, err)
	}
	// A file under the same name takes its place; one block needs no copy, no block is an empty file.
	for _, content := range []string{"one block", ""} {
		up, g := u.begin(u.g, "a/b.bin")
		var ids []string
		if content != "" {
			ids = []string{"x"}
			if err := u.StageBlock(ctx, g, "x", body([]byte(content))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := u.CommitBlocks(ctx, g, ids, "", ""); err != nil {
			t.Fatal(err)
		}
		if err := u.complete(u.g, up.CorrelationID, true); err != nil {
			t.Fatal(err)
		}
		if got := string(u.content("d", "a/b.bin")); got != content {
			t.Errorf("got %q, want %q", got, content)
		}
		if next, err := u.File(ctx, u.c, "d", "a/b.bin"); err != nil || !next.Created.Equal(f.Created) || !next.Updated.After(f.Updated) {
			t.Errorf("%+v, %v after %+v", next, err, f)
		}
		u.consistent()
	}
}

func second[T any](_ T, err error) error { return err }

func TestUploadRefusals(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	ctx := t.Context()
	u.limits.FileBytes, u.limits.UploadBlocks, u.limits.UploadsPerDevice, u.files.each, u.files.share = 1000, 3, 2, 2500, 3500
	other := u.device("e")
	up, g := u.begin(u.g, "x")
	big := make([]byte, 1001)
	u.want(CodeTooLarge, second(u.PutUpload(ctx, g, body(big))))
	u.want(CodeTooLarge, u.StageBlock(ctx, g, "b", body(big)))
	u.want(CodeTooLarge, u.StageBlock(ctx, g, "b", UploadBody{Reader: bytes.NewReader(nil), Size: -1}))
	u.want(CodeArgumentInvalid, u.StageBlock(ctx, g, strings.Repeat("b", 65), body(nil)))
	u.want(CodeArgumentInvalid, u.StageBlock(ctx, g, "b", UploadBody{Reader: bytes.NewReader(big[:10]), Size: 11}))
	u.want(CodeArgumentInvalid, second(u.PutUpload(ctx, g, UploadBody{Reader: io.MultiReader(bytes.NewReader(big[:10]), broken{}), Size: 11})))
	wrong := md5.Sum(big)
	u.want(CodeChecksum, u.StageBlock(ctx, g, "b", UploadBody{Reader: bytes.NewReader(big[:10]), Size: 10, MD5: wrong[:]}))
	u.want(CodeArgumentInvalid, second(u.PutUpload(ctx, g, UploadBody{Reader: bytes.NewReader(nil), Type: "text/plain\r\nX: y"})))
	u.consistent()

	for i := range 3 {
		if err := u.StageBlock(ctx, g, fmt.Sprint(i), body(big[:300])); err != nil {
			t.Fatal(err)
		}
	}
	u.want(CodeTooManyBlocks, u.StageBlock(ctx, g, "3", body(big[:1])))
	u.want(CodeTooLarge, u.StageBlock(ctx, g, "2", body(big[:701])))
	u.want(CodeTooManyBlocks, second(u.CommitBlocks(ctx, g, []string{"0", "1", "2", "0"}, "", "")))
	u.want(CodeUploadNotFound, u.complete(other, up.CorrelationID, true))
	u.want(CodeUploadNotFound, u.complete(other, up.CorrelationID, false))
	u.want(CodeUploadNotFound, u.complete(u.g, "none", false))
	u.consistent()

	_, g2 := u.begin(u.g, "y")
	_, err := u.BeginUpload(ctx, u.g, "z")
	u.want(CodeTooManyUploads, err)
	u.put(g2, big[:1000]) // 900 and 1000 of 2500
	u.want(CodeQuotaExceeded, u.StageBlock(ctx, g2, "b", body(big[:601])))
	u.want(CodeQuotaExceeded, second(u.CommitBlocks(ctx, g, []string{"0", "1", "2"}, "", "")))
	_, g3 := u.begin(other, "y")
	u.put(g3, big[:1000])
	u.want(CodeQuotaExceeded, func() error {
		if err := u.StageBlock(ctx, g3, "b", body(big[:500])); err != nil { // 3,400 of 3,500
			return err
		}
		return u.StageBlock(ctx, g3, "c", body(big[:300]))
	}())
	u.consistent()
	if err := u.complete(u.g, up.CorrelationID, false); err != nil {
		t.Fatal(err)
	}
	u.want(CodeUploadNotFound, u.StageBlock(ctx, g, "b", body(nil)))
	u.want(CodeUploadNotFound, second(u.PutUpload(ctx, g, body(nil))))
	u.want(CodeUploadNotFound, second(u.CommitBlocks(ctx, g, nil, "", "")))
	u.consistent()

	// Who is not who they were writes nothing.
	if _, err := u.UpdateIdentity(ctx, u.c, Identity{DeviceID: "e", Disabled: true}, IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	u.want(CodeUnauthorized, u.StageBlock(ctx, g3, "d", body(nil)))
	_, err = u.BeginUpload(ctx, other, "z")
	u.want(CodeUnauthorized, err)
	_, err = u.BeginUpload(ctx, Grant{ID: TwinID{DeviceID: "d", ModuleID: "m"}}, "z")
	u.want(CodeArgumentInvalid, err)
	_, err = u.BeginUpload(ctx, u.g, "../z")
	u.want(CodeArgumentInvalid, err)
	u.consistent()
}

// broken is a client that went away.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestFilesMakeRoom(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	u.limits.FilesPerDevice = 3
	for _, name := range []string{"d", "c", "b", "a"} { // the oldest goes, not the first by name
		u.upload(u.g, name, []byte(name))
	}
	if got := u.names("d"); got != "a b c" {
		t.Errorf("kept %q, want a b c", got)
	}
	u.upload(u.g, "b", []byte("again")) // the same name needs no room
	if got := u.names("d"); got != "a b c" {
		t.Errorf("kept %q, want a b c", got)
	}
	u.files.each = 100
	u.upload(u.g, "e", make([]byte, 99))
	if got := u.names("d"); got != "e" { // a and b would be 6 bytes
		t.Errorf("kept %q, want e", got)
	}
	other := u.device("other")
	u.upload(other, "x", make([]byte, 50))
	u.files.share = 60
	u.sweep()
	if got := u.names("d") + "/" + u.names("other"); got != "/x" {
		t.Errorf("kept %q, want only the newest, x", got)
	}
	u.consistent()
	events, _, err := u.ReadEvents(t.Context(), u.c, EventFilter{Kinds: []string{"file.deleted"}}, CursorStart, 100)
	if err != nil || len(events) != 5 || !strings.Contains(string(events[0].Data), `"reason":"space"`) || !strings.Contains(string(events[0].Data), `"name":"d"`) {
		t.Errorf("%d deletions, first %s, %v; want 5 for space, first d", len(events), events[0].Data, err)
	}
}

func TestFilesOfDeletedDevice(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	for i := range fileBatch + 5 {
		u.upload(u.g, fmt.Sprint("f", i), fmt.Append(nil, i))
	}
	_, g := u.begin(u.g, "under way")
	if err := u.StageBlock(t.Context(), g, "b", body([]byte("block"))); err != nil {
		t.Fatal(err)
	}
	if err := u.DeleteIdentity(t.Context(), u.c, u.g.ID, IfMatch{Present: true, Any: true}); err != nil {
		t.Fatal(err)
	}
	u.want(CodeDeviceNotFound, u.StageBlock(t.Context(), g, "c", body(nil)))
	again := u.device("d")
	if got := u.names("d"); got != "" {
		t.Errorf("the new device has %q of the old one", got)
	}
	u.upload(again, "mine", []byte("mine"))
	u.consistent()
	if totals := u.FileTotals(); totals.Files != 1 || totals.Uploads != 0 {
		t.Errorf("left are %+v", totals)
	}
	if got := u.names("d"); got != "mine" {
		t.Errorf("the new device has %q", got)
	}
}

// What was acknowledged is there after a restart, and what a process that died
// has left goes.
func TestUploadsSurviveRestart(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	ctx := t.Context()
	up, g := u.begin(u.g, "x")
	if err := u.StageBlock(ctx, g, "1", body([]byte("one"))); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	stray := sha256.Sum256([]byte("stray"))
	for _, name := range []string{"new-ABC", hex.EncodeToString(stray[:])} {
		if err := os.WriteFile(filepath.Join(u.dir, "blobs", name), []byte("stray"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	u.open()
	g = u.authorize(up) // the key of tokens is the same
	u.consistent()
	if err := u.StageBlock(ctx, g, "2", body([]byte("two"))); err != nil {
		t.Fatal(err)
	}
	if _, err := u.CommitBlocks(ctx, g, []string{"2", "1", "2"}, "", ""); err != nil {
		t.Fatal(err)
	}
	if err := u.complete(u.g, up.CorrelationID, true); err != nil {
		t.Fatal(err)
	}
	if got := string(u.content("d", "x")); got != "twoonetwo" {
		t.Errorf("got %q", got)
	}
	u.consistent()
}

// Many at once stay within the bounds, and what they leave adds up.
func TestUploadsSideBySide(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	up, g := u.begin(u.g, "x")
	hold, reading := make(chan struct{}), make(chan struct{}, bodiesPerUpload)
	var wg sync.WaitGroup
	for i := range bodiesPerUpload {
		wg.Go(func() {
			waits := io.MultiReader(readerFunc(func([]byte) (int, error) { reading <- struct{}{}; <-hold; return 0, io.EOF }), bytes.NewReader(make([]byte, 1000)))
			if err := u.StageBlock(t.Context(), g, fmt.Sprint(i), UploadBody{Reader: waits, Size: 1000}); err != nil {
				t.Error(err)
			}
		})
	}
	for range bodiesPerUpload {
		<-reading
	}
	u.want(CodeThrottled, u.StageBlock(t.Context(), g, "more", body(nil)))
	close(hold)
	wg.Wait()
	ids := make([]string, bodiesPerUpload)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	for range 4 {
		wg.Go(func() {
			if _, err := u.CommitBlocks(t.Context(), g, ids, "", ""); err != nil && AsError(err).Code != CodeUnavailable {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := u.complete(u.g, up.CorrelationID, true); err != nil {
		t.Fatal(err)
	}
	if n := len(u.content("d", "x")); n != 1000*bodiesPerUpload {
		t.Errorf("the file has %d bytes", n)
	}
	u.consistent()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestFileNotifications(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	ctx := t.Context()
	for _, name := range []string{"a", "b", "c"} {
		u.upload(u.g, name, []byte(name))
	}
	receive := func(most int, want string) string {
		t.Helper()
		list, token, err := u.ReceiveFileNotifications(ctx, u.c, most)
		var names strings.Builder
		for _, n := range list {
			names.WriteString(n.Name)
		}
		if err != nil || names.String() != want {
			t.Fatalf("received %q, %v; want %q", names.String(), err, want)
		}
		return token
	}
	first, rest := receive(1, "a"), receive(64, "bc")
	if token := receive(64, ""); token != "" {
		t.Errorf("a token for nothing: %q", token)
	}
	u.want(CodeMessageLockLost, u.CompleteFileNotifications(ctx, u.c, "none"))
	if err := errors.Join(u.AbandonFileNotifications(ctx, u.c, first), u.CompleteFileNotifications(ctx, u.c, rest)); err != nil {
		t.Fatal(err)
	}
	u.want(CodeMessageLockLost, u.CompleteFileNotifications(ctx, u.c, rest))
	first = receive(64, "a")
	if err := u.CompleteFileNotifications(ctx, u.c, first); err != nil {
		t.Fatal(err)
	}
	u.files.notify = false
	u.upload(u.g, "d", nil)
	u.want(CodeForbidden, func() error { _, _, err := u.ReceiveFileNotifications(ctx, u.c, 1); return err }())
	u.files.notify = true
	receive(64, "")
	u.want(CodeForbidden, func() error { _, _, err := u.ReceiveFileNotifications(ctx, Caller{}, 1); return err }())
}

func TestFilePages(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	for _, name := range []string{"b/1", "b/2", "b/3", "c", "a"} {
		u.upload(u.g, name, []byte(name))
	}
	var got []string
	for after := ""; ; {
		list, next, err := u.Files(t.Context(), u.c, "d", "b/", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			got = append(got, f.Name)
		}
		if after = next; after == "" {
			break
		}
	}
	if s := strings.Join(got, " "); s != "b/1 b/2 b/3" {
		t.Errorf("got %q", s)
	}
	if got := u.names("d"); got != "a b/1 b/2 b/3 c" {
		t.Errorf("got %q", got)
	}
	u.want(CodeFileNotFound, second(u.File(t.Context(), u.c, "d", "b")))
	u.want(CodeDeviceNotFound, second(u.File(t.Context(), u.c, "none", "b")))
	u.want(CodeForbidden, u.DeleteFile(t.Context(), Caller{}, "d", "a"))
	if err := u.DeleteFile(t.Context(), u.c, "d", "a"); err != nil {
		t.Fatal(err)
	}
	u.want(CodeFileNotFound, u.DeleteFile(t.Context(), u.c, "d", "a"))
	u.consistent()
}

func FuzzFileName(f *testing.F) {
	for _, name := range []string{"a", "a/b.txt", "../a", "a/../b", "a//b", "a\\b", "%2e%2e", "a\x00b", "\xff", "a\u202eb", ".", "...", " ", "grüße/日本"} {
		f.Add(name)
	}
	f.Add("a\ufffdb") // what a JSON decoder makes of "a\xffb"
	f.Fuzz(func(t *testing.T, name string) {
		if checkFileName(name, 1024) != nil {
			return
		}
		if len(name) > 1024 || strings.ContainsAny(name, "\\%#?\x00\r\n\x7f\ufffd") || strings.HasPrefix(name, "/") {
			t.Fatalf("%q is taken", name)
		}
		// It survives the way of a URL and stays below where it is put.
		address, err := url.Parse("https://hub/uploads/d/" + (&url.URL{Path: name}).EscapedPath())
		if err != nil || address.Path != "/uploads/d/"+name {
			t.Fatalf("%q becomes %v, %v", name, address, err)
		}
		if at := filepath.Join("/files", filepath.FromSlash(name)); !strings.HasPrefix(at, "/files/") {
			t.Fatalf("%q leads to %q", name, at)
		}
	})
}

// Below the reserve uploads are refused, and what frees space goes on.
func TestFilesBelowReserve(t *testing.T) {
	t.Parallel()
	u := newUploader(t)
	for _, name := range []string{"a", "b", "c"} {
		u.upload(u.g, name, []byte(name))
	}
	up, g := u.begin(u.g, "d")
	if err := u.StageBlock(t.Context(), g, "b", body([]byte("block"))); err != nil {
		t.Fatal(err)
	}
	free := u.db.Stats().FreeBytes
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := Open(t.Context(), Options{Storage: storage.Options{Dir: u.dir, Memory: 64 << 20, Reserve: free / 2 * 3}})
	if err != nil {
		t.Fatal(err)
	}
	u.Hub = h
	_, err = u.BeginUpload(t.Context(), u.g, "e")
	u.want(CodeReadOnly, err)
	u.want(CodeReadOnly, u.StageBlock(t.Context(), u.authorize(up), "c", body([]byte("more"))))
	if err := u.DeleteFile(t.Context(), u.c, "d", "b"); err != nil {
		t.Errorf("delete: %v", err)
	}
	u.files.share = 1 // of a and c the newer stays
	if err := u.complete(u.g, up.CorrelationID, false); err != nil {
		t.Errorf("give an upload up: %v", err)
	}
	u.sweep()
	if got := u.names("d"); got != "c" {
		t.Errorf("kept %q, want c", got)
	}
	u.consistent()
	if f := u.doctorFiles(); f.Level != "ok" || !strings.Contains(f.Text, "1 files") {
		t.Errorf("the doctor says %+v", f)
	}
}
