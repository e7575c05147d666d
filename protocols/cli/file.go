package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/muster-hub/muster/protocols/client"
)

type fileGroup struct {
	List          fileListCmd          `cmd:"" help:"List the files that a device has uploaded."`
	Show          fileShowCmd          `cmd:"" help:"Show what is known of a file."`
	Download      fileDownloadCmd      `cmd:"" help:"Download a file."`
	Delete        fileDeleteCmd        `cmd:"" help:"Delete files of a device."`
	Notifications fileNotificationsCmd `cmd:"" help:"Receive which files were uploaded, and remove that from the hub; needs serve --file-notifications."`
}

type fileListCmd struct {
	HubFlags
	OutputFlags
	Prefix string `help:"Only names that begin so." placeholder:"TEXT"`
	Limit  int    `help:"At most so many; 0 = all." default:"1000"`
	ID     string `arg:"" name:"id" help:"DEVICE."`
}

// Run lists the files.
func (c *fileListCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	sh := &sheet{columns: []string{"NAME", "BYTES", "TYPE", "UPDATED", "SHA256"}, empty: "No files."}
	for f, err := range s.Files(ctx, c.ID, c.Prefix) {
		if err != nil {
			return err
		}
		if c.Limit > 0 && len(sh.rows) == c.Limit {
			a.note("There are more than %d; --limit 0 lists all, --prefix narrows.", c.Limit)
			break
		}
		sh.add(f, f.Name, f.Size, f.ContentType, f.UpdatedTime, f.SHA256)
	}
	return a.print(c.OutputFlags, sh)
}

type fileShowCmd struct {
	HubFlags
	OutputFlags
	ID   string `arg:"" name:"id" help:"DEVICE."`
	Name string `arg:"" name:"name" help:"Name of the file."`
}

// Run shows a file.
func (c *fileShowCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	f, err := s.File(ctx, c.ID, c.Name)
	if err != nil {
		return err
	}
	return a.printRecord(c.OutputFlags, f, []field{
		{"device", f.DeviceID}, {"name", f.Name}, {"bytes", f.Size}, {"sha256", f.SHA256}, {"type", f.ContentType}, {"encoding", f.ContentEncoding},
		{"created", f.CreatedTime}, {"updated", f.UpdatedTime}, {"upload", f.CorrelationID}, {"etag", f.ETag},
	})
}

type fileDownloadCmd struct {
	HubFlags
	To    string `short:"t" help:"File to make; - is standard output, on a terminal only for what looks like text. Without it, the last part of the file's name in the current directory." placeholder:"FILE"`
	Force bool   `help:"Replace a file that exists."`
	ID    string `arg:"" name:"id" help:"DEVICE."`
	Name  string `arg:"" name:"name" help:"Name of the file."`
}

// Run downloads a file: into a temporary one beside its place, which it takes
// when the content is whole and its checksum right.
func (c *fileDownloadCmd) Run(a *app) error {
	to := c.To
	if to == "" {
		var ok bool
		if to, ok = localName(c.Name); !ok {
			return usage("a file must not be made here under the name "+strconv.Quote(printable(c.Name)), "Say where it goes with --to FILE.")
		}
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	if to == "-" {
		return a.content(func(w io.Writer) error { _, err := s.DownloadFile(ctx, c.ID, c.Name, w); return err })
	}
	f, err := createFile(to, c.Force, "Say another place with --to FILE, or replace it with --force.")
	if err != nil {
		return err
	}
	defer f.drop()
	n, err := s.DownloadFile(ctx, c.ID, c.Name, f)
	if err == nil {
		err = f.keep()
	}
	if err != nil {
		return err
	}
	a.note("%s: %d bytes, checksum right.", printable(to), n)
	return nil
}

// localName is the last part of a file's name, if that is a plain name of a
// file that nothing on this machine treats in a special way. A device chose it.
func localName(name string) (string, bool) {
	last := name[strings.LastIndexByte(name, '/')+1:]
	if last == "" || len(last) > 200 || strings.HasPrefix(last, ".") || strings.HasPrefix(last, "-") || !filepath.IsLocal(last) || filepath.Base(last) != last {
		return "", false
	}
	for _, r := range last {
		if r < ' ' || r == 0x7f || strings.ContainsRune(`\/:*?"<>|`, r) {
			return "", false
		}
	}
	return last, true
}

type fileDeleteCmd struct {
	HubFlags
	Yes   bool     `short:"y" help:"Do not ask."`
	ID    string   `arg:"" name:"id" help:"DEVICE."`
	Names []string `arg:"" name:"name" help:"Names of the files."`
}

// Run deletes files.
func (c *fileDeleteCmd) Run(a *app) error {
	if err := a.confirm(c.Yes, fmt.Sprintf("Delete %d files of %s?", len(c.Names), printable(c.ID))); err != nil {
		return err
	}
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	for _, name := range c.Names {
		if err := s.DeleteFile(ctx, c.ID, name); err != nil {
			return err
		}
	}
	return nil
}

type fileNotificationsCmd struct {
	HubFlags
	OutputFlags
}

// Run receives notifications, prints them, and then removes them.
func (c *fileNotificationsCmd) Run(a *app) error {
	s, ctx, stop, err := a.connect(c.HubFlags)
	if err != nil {
		return err
	}
	defer stop()
	list, token, err := s.ReceiveFileNotifications(ctx)
	if err != nil {
		return err
	}
	sh := &sheet{columns: []string{"TIME", "DEVICE", "FILE", "BYTES"}, empty: "There is no notification."}
	for _, n := range list {
		sh.add(n, n.LastUpdatedTime, n.DeviceID, fileOf(n), n.BlobSizeInBytes)
	}
	if err := a.print(c.OutputFlags, sh); err != nil || token == "" {
		return err
	}
	return s.CompleteFileNotifications(ctx, token)
}

func fileOf(n client.FileNotification) string { return strings.TrimPrefix(n.BlobName, n.DeviceID+"/") }
