package pattern

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/muster-hub/muster/engine/rollout"
)

func bundle(files ...string) *Bundle {
	b := &Bundle{Files: map[string][]byte{}}
	for _, f := range files {
		b.Files[f] = []byte("-- " + f)
	}
	return b
}

// entry is one of an archive of a test.
type entry struct {
	name string
	data string
	kind byte // of tar; 0: a file
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Typeflag: e.kind, Name: e.name, Size: int64(len(e.data)), Mode: 0o644, Linkname: "/etc/passwd"}
		if e.kind == 0 || e.kind == tar.TypeReg {
			h.Typeflag, h.Linkname = tar.TypeReg, ""
		}
		if e.kind == tar.TypeXGlobalHeader {
			*h = tar.Header{Typeflag: e.kind, Name: e.name, PAXRecords: map[string]string{"comment": "x" + e.data}}
			e.data = ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if e.kind == tar.TypeSymlink {
			h.SetMode(fs.ModeSymlink | 0o777)
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(e.data)); err != nil && !strings.HasSuffix(e.name, "/") {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReadArchive(t *testing.T) {
	t.Parallel()
	flat := []entry{{"pattern.lua", "-- main", 0}, {"lib/", "", tar.TypeDir}, {"lib/x.lua", "-- x", 0}, {"README.md", "# It", 0}}
	var inside, dotted []entry
	for _, e := range flat {
		inside = append(inside, entry{"reboot-1.0/" + e.name, e.data, e.kind})
		dotted = append(dotted, entry{"./" + e.name, e.data, e.kind})
	}
	want := map[string][]byte{"pattern.lua": []byte("-- main"), "lib/x.lua": []byte("-- x"), "README.md": []byte("# It")}
	for name, data := range map[string][]byte{
		"flat.tar.gz": tarOf(t, flat...), "inside.tgz": tarOf(t, inside...), "flat.zip": zipOf(t, flat...), "inside.zip": zipOf(t, inside...),
		"dotted.tar.gz": tarOf(t, append([]entry{{"./", "", tar.TypeDir}}, dotted...)...), "": tarOf(t, flat...),
		"git.tar.gz": tarOf(t, append([]entry{{"pax_global_header", "", tar.TypeXGlobalHeader}}, inside...)...),
	} {
		b, s, err := ReadArchive(name, data)
		if err != nil || s != nil || !maps.EqualFunc(b.Files, want, bytes.Equal) {
			t.Errorf("%s: got %v, %v and %v", name, b, s, err)
		}
	}
	b, _, err := ReadArchive("reboot.lua", []byte("return pattern {}"))
	if err != nil || len(b.Files) != 1 || string(b.Files[MainFile]) != "return pattern {}" {
		t.Errorf("one file: got %v and %v", b, err)
	}
}

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	main := entry{"pattern.lua", "-- main", 0}
	big := strings.Repeat("x", MaxFile+1)
	many := []entry{main}
	for i := range MaxFiles {
		many = append(many, entry{fmt.Sprintf("lib/a%d.lua", i), "", 0})
	}
	folders := []entry{main}
	for i := range entriesMost {
		folders = append(folders, entry{fmt.Sprintf("f%d/", i), "", tar.TypeDir})
	}
	large := []entry{main}
	for i := range 5 {
		large = append(large, entry{fmt.Sprintf("a%d.md", i), strings.Repeat("x", MaxFile), 0})
	}
	for _, c := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"climbs", []entry{main, {"../evil.lua", "", 0}}, "does not lie in the pattern's folder"},
		{"climbs within", []entry{main, {"lib/../../evil.lua", "", 0}}, "does not lie in the pattern's folder"},
		{"absolute", []entry{main, {"/etc/passwd", "", 0}}, "does not lie in the pattern's folder"},
		{"backslash", []entry{main, {`..\evil.lua`, "", 0}}, "not every system takes"},
		{"drive", []entry{main, {"C:evil.lua", "", 0}}, "not every system takes"},
		{"hidden", []entry{main, {".git/config", "", 0}}, "is hidden"},
		{"twice", []entry{main, main}, "comes twice"},
		{"by case", []entry{main, {"lib/X.lua", "", 0}, {"lib/x.lua", "", 0}}, "where letters have no case"},
		{"folders by case", []entry{main, {"lib/a.lua", "", 0}, {"LIB/b.lua", "", 0}}, "where letters have no case"},
		{"file and folder", []entry{main, {"lib", "", 0}, {"lib/x.lua", "", 0}}, "one is a folder"},
		{"no text in its name", []entry{main, {"a\xff.lua", "", 0}}, "not every system takes"},
		{"a foreign letter", []entry{main, {"ä.lua", "", 0}}, "not every system takes"},
		{"dot at the end", []entry{main, {"lib./x.lua", "", 0}}, "no path of a file"},
		{"long", []entry{main, {strings.Repeat("a", 101), "", 0}}, "longer than 100 bytes"},
		{"deep", []entry{main, {"a/b/c/d/e/f/g.lua", "", 0}}, "folders deep"},
		{"large file", []entry{main, {"README.md", big, 0}}, "more than 262144 bytes"},
		{"large", large, "more than 1048576 bytes"},
		{"many files", many, "has 65 files"},
		{"many folders", folders, "more than 256 files and folders"},
		{"no main file", []entry{{"lib/x.lua", "", 0}, {"y.lua", "", 0}}, "pattern.lua: is missing"},
		{"empty", nil, "pattern.lua: is missing"},
		{"bytes", []entry{{"pattern.lua", "\xff\xfe", 0}}, "is no text"},
		{"bad signature", []entry{main, {"pattern.sig", "{}", 0}}, "has no key"},
		{"symbolic link", []entry{main, {"lib/x.lua", "", tar.TypeSymlink}}, "a link or a device"},
	} {
		for form, make := range map[string]func(testing.TB, ...entry) []byte{"tar": tarOf, "zip": zipOf} {
			if form == "tar" && c.name == "no text in its name" {
				continue // the writer refuses
			}
			_, _, err := ReadArchive("x", make(t, c.entries...))
			if faults, ok := errors.AsType[rollout.Faults](err); !ok || !strings.Contains(faults.Error(), c.want) {
				t.Errorf("%s in a %s: got %v, want %q", c.name, form, err, c.want)
			}
		}
	}
	for _, kind := range []byte{tar.TypeLink, tar.TypeChar, tar.TypeFifo, tar.TypeBlock} {
		if _, _, err := ReadArchive("x", tarOf(t, main, entry{"lib/x.lua", "", kind})); err == nil || !strings.Contains(err.Error(), "a link or a device") {
			t.Errorf("an entry of kind %c: got %v", kind, err)
		}
	}
	for name, data := range map[string][]byte{
		"nothing": {}, "bytes": {1, 2, 3, 0xff}, "a zero": []byte("return\x00"), "cut gzip": tarOf(t, main)[:20], "cut zip": zipOf(t, main)[:40],
		"no tar": gzipped(t, bytes.Repeat([]byte("x"), 2000)), "too long": bytes.Repeat([]byte("-"), MaxArchive+1),
		"nothing in it": gzipped(t, nil),
	} {
		if _, _, err := ReadArchive(name, data); err == nil {
			t.Errorf("%s is taken", name)
		} else if _, ok := errors.AsType[rollout.Faults](err); !ok {
			t.Errorf("%s: %v is no fault of the archive", name, err)
		}
	}
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestArchiveBomb unpacks what is small and would become large: reading ends at
// the bound.
func TestArchiveBomb(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("\x00", 8<<20)
	remark := entry{"remark", strings.Repeat("x", 900<<10), tar.TypeXGlobalHeader}
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"a file of a tar", "has more than 262144 bytes", tarOf(t, entry{"pattern.lua", zeros, 0})},
		{"a file of a zip", "has more than 262144 bytes", zipOf(t, entry{"pattern.lua", zeros, 0})},
		{"what is left out", "unpacks to more than 2097152 bytes", tarOf(t, remark, remark, remark, entry{"pattern.lua", "", 0})},
	} {
		if len(c.data) > MaxArchive {
			t.Fatalf("%s has %d bytes: it tests nothing", c.name, len(c.data))
		}
		if _, _, err := ReadArchive("x", c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestWriteArchive(t *testing.T) {
	t.Parallel()
	b := bundle("pattern.lua", "lib/x.lua", "test/a.lua", "README.md")
	_, private, err := GenerateKey(strings.NewReader(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Sign(b, private)
	if err != nil {
		t.Fatal(err)
	}
	for _, signature := range []*Signature{nil, s} {
		first, err := WriteArchive(b, signature)
		if err != nil {
			t.Fatal(err)
		}
		second, err := WriteArchive(bundle("README.md", "test/a.lua", "lib/x.lua", "pattern.lua"), signature)
		if err != nil || !bytes.Equal(first, second) {
			t.Errorf("the same files give other bytes: %v", err)
		}
		read, found, err := ReadArchive("x.tar.gz", first)
		if err != nil || read.Hash() != b.Hash() || (found == nil) != (signature == nil) {
			t.Fatalf("read as %v, %v, %v", read, found, err)
		}
		if found != nil && (*found != *s || found.Verify(read) != nil) {
			t.Errorf("its signature is another: %v", found)
		}
	}
	if _, err := WriteArchive(bundle("lib/x.lua"), nil); err == nil {
		t.Error("files without pattern.lua are written")
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	of := func(pairs ...string) string {
		b := &Bundle{Files: map[string][]byte{}}
		for i := 0; i < len(pairs); i += 2 {
			b.Files[pairs[i]] = []byte(pairs[i+1])
		}
		return b.Hash()
	}
	all := []string{of("a", "bc"), of("ab", "c"), of("a", "b", "c", ""), of("a", "", "bc", ""), of("a1:", ""), of()}
	slices.Sort(all)
	if len(slices.Compact(all)) != 6 {
		t.Error("different bundles have the same hash")
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	b := bundle("pattern.lua", "lib/x.lua")
	public, private, err := GenerateKey(strings.NewReader(strings.Repeat("a", 32)))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := PublicKey(private + "\n"); err != nil || again != public {
		t.Errorf("the public key is %s and then %s, %v", public, again, err)
	}
	if err := CheckKey(public); err != nil {
		t.Error(err)
	}
	s, err := Sign(b, private)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(b); err != nil {
		t.Error(err)
	}
	read, err := ParseSignature(s.Marshal())
	if err != nil || *read != *s {
		t.Errorf("read as %v, %v", read, err)
	}
	other, _, _ := GenerateKey(strings.NewReader(strings.Repeat("b", 32)))
	for name, bad := range map[string]*Signature{
		"another key": {other, s.Signature}, "no key": {"", s.Signature}, "a short key": {public[:20], s.Signature},
		"no signature": {public, ""}, "a cut one": {public, s.Signature[:40]}, "another one": {public, strings.Repeat("A", 86) + "=="},
	} {
		if bad.Verify(b) == nil {
			t.Errorf("%s verifies", name)
		}
	}
	more := bundle("pattern.lua", "lib/x.lua", "lib/y.lua")
	changed := bundle("pattern.lua", "lib/x.lua")
	changed.Files["lib/x.lua"] = []byte("-- evil")
	if s.Verify(more) == nil || s.Verify(changed) == nil {
		t.Error("a signature is of other files, too")
	}
	for name, text := range map[string]string{
		"empty": "", "not JSON": "x", "more members": `{"key": "a", "signature": "b", "more": 1}`, "long": `{"key": "` + strings.Repeat("a", 2000) + `"}`,
		"no key": `{"signature": "` + s.Signature + `"}`, "no signature": `{"key": "` + public + `"}`,
	} {
		if _, err := ParseSignature([]byte(text)); err == nil {
			t.Errorf("%s is a signature", name)
		}
	}
	if err := CheckKey(private); err == nil || !strings.Contains(err.Error(), "private") {
		t.Errorf("a private key to be trusted: %v", err)
	}
	for _, bad := range []string{"", "x", public, private[:60], strings.Replace(private, private[60:62], "AA", 1)} {
		if _, err := Sign(b, bad); err == nil {
			t.Errorf("%q signs", bad)
		}
	}
	if _, err := Sign(bundle("x.lua"), private); err == nil {
		t.Error("a bundle that is none is signed")
	}
	if _, _, err := GenerateKey(strings.NewReader("short")); err == nil {
		t.Error("a key of few random bytes")
	}
}

func FuzzReadArchive(f *testing.F) {
	f.Add(tarOf(f, entry{"pattern.lua", "--", 0}, entry{"lib/x.lua", "--", 0}))
	f.Add(zipOf(f, entry{"a/pattern.lua", "--", 0}, entry{"a/lib/x.lua", "--", 0}))
	f.Add([]byte("return pattern {}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, s, err := ReadArchive("x", data)
		if err != nil {
			if _, ok := errors.AsType[rollout.Faults](err); !ok {
				t.Fatalf("%v is no fault of the archive", err)
			}
			return
		}
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		again, err := WriteArchive(b, s)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := ReadArchive("x", again)
		if err != nil || c.Hash() != b.Hash() {
			t.Fatalf("what was written is read otherwise: %v", err)
		}
	})
}

func FuzzParseSignature(f *testing.F) {
	f.Add([]byte(`{"key": "a", "signature": "b"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSignature(text)
		if err != nil {
			return
		}
		again, err := ParseSignature(s.Marshal())
		if err != nil || *again != *s {
			t.Fatalf("read again as %v, %v", again, err)
		}
		if s.Verify(bundle("pattern.lua")) == nil {
			t.Fatal("a signature was guessed")
		}
	})
}
