package cli

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/muster-hub/muster/protocols/client"
)

type containerGroup struct {
	Create containerCreateCmd `cmd:"" help:"Make a container of blobs and print its address."`
	List   containerListCmd   `cmd:"" help:"List containers."`
	Blobs  containerBlobsCmd  `cmd:"" help:"List the blobs of a container."`
	Access containerAccessCmd `cmd:"" help:"Print an address of a container that opens it to whoever has it."`
	Put    containerPutCmd    `cmd:"" help:"Put a file into a container."`
	Get    containerGetCmd    `cmd:"" help:"Get a blob out of a container."`
	Delete containerDeleteCmd `cmd:"" help:"Delete containers with their blobs, or one blob."`
}

// AccessFlags say how long an address is good.
type AccessFlags struct {
	Expires time.Duration `help:"How long the address is good, at most 168h." default:"24h"`
}

type containerCreateCmd struct {
	HubFlags
	OutputFlags
	AccessFlags
	Name string `arg:"" optional:"" help:"3 to 63 lower-case letters, digits and single dashes; without it the hub makes one up."`
}

// Run makes a container.
func (c *containerCreateCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	made, err := s.CreateContainer(ctx, c.Name, rand.Text())
	if err != nil {
		return err
	}
	return a.printAccess(ctx, s, c.OutputFlags, made.Name, c.Expires)
}

func (a *app) printAccess(ctx context.Context, s *client.Service, o OutputFlags, name string, life time.Duration) error {
	access, err := s.ContainerAccess(ctx, name, life)
	if err != nil {
		return err
	}
	return a.printRecord(o, access, []field{{"container", access.Container}, {"address", access.URI}, {"expires", access.ExpiresTime}})
}

type containerAccessCmd struct {
	HubFlags
	OutputFlags
	AccessFlags
	Name string `arg:"" help:"Container."`
}

// Run prints an address.
func (c *containerAccessCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	return a.printAccess(ctx, s, c.OutputFlags, c.Name, c.Expires)
}

type containerListCmd struct {
	HubFlags
	OutputFlags
}

// Run lists containers.
func (c *containerListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"CONTAINER", "BLOBS", "BYTES", "UPDATED", "PRINCIPAL"}, empty: "No containers. `muster container create` makes one."}
	for b, err := range s.Containers(ctx) {
		if err != nil {
			return err
		}
		sh.add(b, b.Name, b.Blobs, b.Bytes, b.UpdatedTime, b.Principal)
	}
	return a.print(c.OutputFlags, sh)
}

type containerBlobsCmd struct {
	HubFlags
	OutputFlags
	Name string `arg:"" help:"Container."`
}

// Run lists blobs.
func (c *containerBlobsCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"BLOB", "BYTES", "TYPE", "UPDATED", "SHA256"}, empty: "No blobs."}
	for b, err := range s.Blobs(ctx, c.Name) {
		if err != nil {
			return err
		}
		sh.add(b, b.Name, b.Size, b.ContentType, b.UpdatedTime, b.SHA256)
	}
	return a.print(c.OutputFlags, sh)
}

type containerPutCmd struct {
	HubFlags
	Name string `arg:"" help:"Container."`
	File string `arg:"" help:"File to put; - is standard input."`
	Blob string `arg:"" optional:"" help:"Name of the blob; without it the file's own."`
}

// Run puts a file.
func (c *containerPutCmd) Run(a *app) error {
	name, in := c.Blob, a.io.In
	if c.File == "-" && name == "" {
		return usage("standard input has no name", "Give the blob's name too.")
	}
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return &problem{exit: ExitUsage, what: "the file cannot be read", why: pathError(err), next: "Check the file's name and rights."}
		}
		defer f.Close()
		if in = f; name == "" {
			name = filepath.Base(c.File)
		}
	}
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	var access client.ContainerAccess
	if err := a.call(c.HubFlags, func(ctx context.Context) (err error) { access, err = s.ContainerAccess(ctx, c.Name, 0); return err }); err != nil {
		return err
	}
	n, err := s.PutBlob(a.ctx, access, name, in, nil)
	if err == nil {
		a.note("%s: %d bytes.", printable(name), n)
	}
	return err
}

type containerGetCmd struct {
	HubFlags
	To   string `short:"t" help:"File to make or replace; - is standard output, on a terminal only for what looks like text." default:"-" placeholder:"FILE"`
	Name string `arg:"" help:"Container."`
	Blob string `arg:"" help:"Blob."`
}

// Run gets a blob.
func (c *containerGetCmd) Run(a *app) error {
	s, err := a.service(c.HubFlags)
	if err != nil {
		return err
	}
	defer s.Close()
	var access client.ContainerAccess
	if err := a.call(c.HubFlags, func(ctx context.Context) (err error) { access, err = s.ContainerAccess(ctx, c.Name, 0); return err }); err != nil {
		return err
	}
	get := func(w io.Writer) error { _, err := s.GetBlob(a.ctx, access, c.Blob, w); return err }
	if c.To == "-" {
		return a.content(get)
	}
	f, err := createFile(c.To, true, "")
	if err != nil {
		return err
	}
	defer f.drop()
	if err := get(f); err != nil {
		return err
	}
	return f.keep()
}

type containerDeleteCmd struct {
	HubFlags
	Yes  bool   `short:"y" help:"Do not ask."`
	Blob string `help:"Delete only this blob." placeholder:"BLOB"`
	Name string `arg:"" help:"Container."`
}

// Run deletes a container or a blob.
func (c *containerDeleteCmd) Run(a *app) error {
	what := "the container " + printable(c.Name) + " with its blobs"
	if c.Blob != "" {
		what = "the blob " + printable(c.Blob)
	}
	s, ctx, stop, err := a.connectConfirmed(c.HubFlags, c.Yes, "Delete "+what+"?")
	if err != nil {
		return err
	}
	defer stop()
	if c.Blob == "" {
		return s.DeleteContainer(ctx, c.Name)
	}
	access, err := s.ContainerAccess(ctx, c.Name, 0)
	if err != nil {
		return err
	}
	return s.DeleteBlob(ctx, access, c.Blob)
}
