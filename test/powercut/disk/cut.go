package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Cut is the moment at which power ends.
type Cut struct {
	d *Disk
}

// Image says what one image has and lacks.
type Image struct {
	Files       int `json:"files"`
	Changes     int `json:"changes"`     // uncertain changes of names and sizes
	ChangesLost int `json:"changesLost"` // of these, lost
	Pages       int `json:"pages"`       // pages written since their sync
	PagesLost   int `json:"pagesLost"`   // of these, not written
	PagesTorn   int `json:"pagesTorn"`   // of these, written in part

	// From names the inode that each file of the image was.
	From map[string]uint64 `json:"-"`
}

// Image writes one state that the disk could show after this cut into dir,
// which must not exist.
func (c *Cut) Image(dir string, rng *rand.Rand) (Image, error) {
	d := c.d
	if err := d.complete(); err != nil {
		return Image{}, err
	}
	// Nothing survives, everything, or any prefix.
	kept := rng.IntN(len(d.changes) + 1)
	switch rng.IntN(4) {
	case 0:
		kept = 0
	case 1:
		kept = len(d.changes)
	}
	img := Image{Changes: len(d.changes), ChangesLost: len(d.changes) - kept, From: map[string]uint64{}}
	names := maps.Clone(d.certain)
	for _, ch := range d.changes[:kept] {
		ch.apply(names)
	}
	if err := d.copyDirs(dir); err != nil {
		return img, err
	}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		n := names[path]
		st, err := n.f.Stat()
		if err != nil {
			return img, err
		}
		content, err := d.render(n, kept, rng, &img)
		if err != nil {
			return img, fmt.Errorf("image of %s: %w", path, err)
		}
		if err := content.write(filepath.Join(dir, path), st.Mode().Perm()); err != nil {
			return img, err
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			img.From[path] = sys.Ino
		}
		img.Files++
	}
	return img, d.err
}

// complete fails if a file came, went or changed its name without a record.
func (d *Disk) complete() error {
	seen := 0
	err := d.walk(func(path string) error {
		if d.live[path] == nil {
			return fmt.Errorf("power-cut record: %s was created unseen: hook its creation", path)
		}
		seen++
		return nil
	})
	if err == nil && seen != len(d.live) {
		err = fmt.Errorf("power-cut record: %d files on disk, %d recorded: one was removed unseen", seen, len(d.live))
	}
	return errors.Join(err, d.err)
}

func (d *Disk) copyDirs(dir string) error {
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !e.IsDir() {
			return nil
		}
		r, _ := d.rel(path)
		return os.MkdirAll(filepath.Join(dir, r), 0o700)
	})
}

// render draws a content of n, given how many uncertain changes survive.
func (d *Disk) render(n *Node, kept int, rng *rand.Rand, img *Image) (content, error) {
	base := n.synced.clone()
	var later content
	found := false
	for i, c := range d.changes {
		if c.node != n || c.op != "resize" {
			continue
		}
		if i < kept {
			base = base.resized(c.size)
			continue
		}
		later, found = c.before, true
		break
	}
	if !found {
		later = d.read(n)
	}
	if later.size < base.size {
		return content{}, fmt.Errorf("%d bytes long, was %d: it was cut unseen", later.size, base.size)
	}
	return mix(base, later, rng, img), nil
}

// mix draws a state between the synced content and a later one.
func mix(synced, later content, rng *rand.Rand, img *Image) content {
	survive := []float64{0, 1, 0.1, 0.5, 0.5, 0.9}[rng.IntN(6)]
	out := synced.clone()
	end := synced.size // of the last surviving page
	for _, i := range slices.Sorted(maps.Keys(later.pages)) {
		was, is := synced.page(i), later.pages[i]
		if bytes.Equal(was, is) {
			continue
		}
		img.Pages++
		switch {
		case rng.Float64() >= survive:
			img.PagesLost++
			continue
		case survive < 1 && rng.IntN(3) == 0:
			img.PagesTorn++
			is = tear(was, is, rng)
		}
		out.pages[i] = is
		end = max(end, min((i+1)*pageSize, later.size))
	}
	// Pages that became zeros are in synced only.
	for _, i := range slices.Sorted(maps.Keys(synced.pages)) {
		if later.pages[i] == nil && (i+1)*pageSize <= later.size && rng.Float64() < survive {
			img.Pages++
			delete(out.pages, i)
		}
	}
	// The length of a file that grew by writes is between both.
	if end > synced.size && survive < 1 && rng.IntN(3) == 0 {
		end = synced.size + rng.Int64N(end-synced.size+1)
	}
	return out.resized(end)
}

// tear returns a page of which some sectors were written.
func tear(was, is []byte, rng *rand.Rand) []byte {
	p := bytes.Clone(was)
	for s := 0; s < pageSize; s += sectorSize {
		if rng.IntN(2) == 0 {
			copy(p[s:s+sectorSize], is[s:])
		}
	}
	return p
}
