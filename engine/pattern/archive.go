package pattern

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-hub/muster/engine/rollout"
)

const (
	// MaxArchive bounds the bytes of an archive that is read.
	MaxArchive = 2 << 20

	unpackMost  = MaxBundle + 1<<20 // bytes of a tar: files and what lies between
	entriesMost = 4 * MaxFiles      // of an archive, folders included
)

// ReadArchive reads a bundle from an archive (.tar.gz or .zip) or from one file
// of Lua, and the signature in it; nil: none. What it is, its first bytes tell;
// name is what it is called in errors. The whole may lie in one folder of the
// archive. The bundle is checked as [Bundle.Check] does. The error is
// [rollout.Faults].
func ReadArchive(name string, data []byte) (*Bundle, *Signature, error) {
	if name == "" {
		name = "archive"
	}
	if len(data) > MaxArchive {
		return nil, nil, fileFault(name, fmt.Sprintf("has %d bytes", len(data)), fmt.Sprintf("at most %d", MaxArchive))
	}
	u := unpacking{name: name, files: map[string][]byte{}}
	var err error
	switch {
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		err = u.tarball(data)
	case bytes.HasPrefix(data, []byte("PK\x03\x04")), bytes.HasPrefix(data, []byte("PK\x05\x06")):
		err = u.zip(data)
	case len(data) > 0 && utf8.Valid(data) && !bytes.Contains(data, []byte{0}):
		u.files[MainFile] = data
	default:
		err = fileFault(name, "is neither of these", "a .tar.gz, a .zip or a file of Lua")
	}
	if err != nil {
		return nil, nil, err
	}
	return u.bundle()
}

func fileFault(path, reason, expected string) error {
	return rollout.Faults{{Path: clip(strings.ToValidUTF8(path, "\uFFFD")), Reason: reason, Expected: expected}}
}

// unpacking is an archive that is being read.
type unpacking struct {
	name    string
	files   map[string][]byte
	entries int
	bytes   int
}

// entry says where a file of the archive belongs.
func (u *unpacking) entry(path string, folder bool) (string, error) {
	if u.entries++; u.entries > entriesMost {
		return "", fileFault(u.name, fmt.Sprintf("has more than %d files and folders", entriesMost), fmt.Sprintf("at most %d files", MaxFiles))
	}
	path = strings.TrimPrefix(path, "./")
	if folder {
		if path = strings.TrimSuffix(path, "/"); path == "" || path == "." {
			return "", nil
		}
	}
	if reason := badPath(path, partsMost+1); reason != "" { // one folder may be around the whole
		return "", fileFault(path, reason, pathExpected)
	}
	return path, nil
}

// add reads one file, and never more of it than may be.
func (u *unpacking) add(path string, r io.Reader) error {
	if _, have := u.files[path]; have {
		return fileFault(path, "comes twice", "")
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	switch u.bytes += len(data); {
	case err != nil:
		return u.broken(err)
	case len(data) > MaxFile:
		return fileFault(path, fmt.Sprintf("has more than %d bytes", MaxFile), "less")
	case u.bytes > MaxBundle:
		return fileFault(u.name, fmt.Sprintf("has files of more than %d bytes", MaxBundle), "less")
	}
	u.files[path] = data
	return nil
}

func (u *unpacking) broken(err error) error {
	if f, ok := errors.AsType[rollout.Faults](err); ok {
		return f
	}
	return fileFault(u.name, "can't be unpacked: "+clip(err.Error()), "a whole archive")
}

// capped gives an error where a reader has more than it may, so that nothing
// unpacks without end.
type capped struct {
	r    io.Reader
	left int
	name string
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fileFault(c.name, fmt.Sprintf("unpacks to more than %d bytes", unpackMost), "less")
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

func (u *unpacking) tarball(data []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return u.broken(err)
	}
	r := tar.NewReader(&capped{z, unpackMost, u.name})
	for {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return u.broken(err)
		case h.Typeflag == tar.TypeXGlobalHeader: // of no file
			if _, err := u.entry("x", false); err != nil {
				return err
			}
			continue
		case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir:
			return fileFault(h.Name, "is a link or a device", "files and folders")
		}
		path, err := u.entry(h.Name, h.Typeflag == tar.TypeDir)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if err := u.add(path, r); err != nil {
				return err
			}
		}
	}
}

func (u *unpacking) zip(data []byte) error {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return u.broken(err)
	}
	for _, f := range r.File {
		folder := strings.HasSuffix(f.Name, "/")
		if t := f.Mode().Type(); t != 0 && t != fs.ModeDir || folder != (t == fs.ModeDir) {
			return fileFault(f.Name, "is a link or a device", "files and folders")
		}
		path, err := u.entry(f.Name, folder)
		if err != nil {
			return err
		}
		if folder {
			continue
		}
		if f.Flags&1 != 0 {
			return fileFault(path, "is encrypted", "a plain file")
		}
		content, err := f.Open()
		if err != nil {
			return u.broken(err)
		}
		err = u.add(path, content)
		if err = errors.Join(err, content.Close()); err != nil {
			return u.broken(err)
		}
	}
	return nil
}

// bundle takes the folder around the files and the signature away, and checks
// what is left.
func (u *unpacking) bundle() (*Bundle, *Signature, error) {
	if _, have := u.files[MainFile]; !have {
		u.strip()
	}
	var signature *Signature
	if text, have := u.files[SignatureFile]; have {
		var err error
		if signature, err = ParseSignature(text); err != nil {
			return nil, nil, err
		}
		delete(u.files, SignatureFile)
	}
	b := &Bundle{Files: u.files}
	if err := b.Check(); err != nil {
		return nil, nil, err
	}
	return b, signature, nil
}

// strip takes away the one folder in which all files lie.
func (u *unpacking) strip() {
	folder := ""
	for path := range u.files {
		first, _, inside := strings.Cut(path, "/")
		if !inside || folder != "" && folder != first {
			return
		}
		folder = first
	}
	files := make(map[string][]byte, len(u.files))
	for path, data := range u.files {
		files[strings.TrimPrefix(path, folder+"/")] = data
	}
	u.files = files
}

// WriteArchive returns a bundle as .tar.gz, with its signature unless that is
// nil. The same bundle gives the same bytes.
func WriteArchive(b *Bundle, s *Signature) ([]byte, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	files := b.Files
	if s != nil {
		files = maps.Clone(files)
		files[SignatureFile] = s.Marshal()
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		h := tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(files[path])), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(files[path]); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
