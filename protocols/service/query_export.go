package service

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-hub/muster/engine"
)

// exportFormat is a form in which all rows of a query are streamed.
type exportFormat struct {
	name, contentType string
	begin             func(w *bufio.Writer, columns []string) rowWriter
}

// rowWriter writes the rows of a page.
type rowWriter func(p engine.QueryPage) error

func exportFormats() []*exportFormat {
	return []*exportFormat{
		{"ndjson", "application/x-ndjson", lines},
		{"csv", "text/csv", commas},
	}
}

// exportFormat returns the stream that the client asks for, nil for pages. The
// query parameter comes before the Accept header.
func (c *call) exportFormat() (*exportFormat, error) {
	if name, ok := c.query["format"]; ok {
		if name[0] == "json" {
			return nil, nil
		}
		for _, f := range exportFormats() {
			if f.name == name[0] {
				return f, nil
			}
		}
		return nil, invalid("the query parameter format is %q; expected json, ndjson or csv", clip(name[0]))
	}
	for accept := range strings.SplitSeq(c.r.Header.Get("Accept"), ",") {
		kind, _, err := mime.ParseMediaType(accept)
		if err != nil {
			continue
		}
		if kind == "application/json" || kind == "*/*" {
			return nil, nil
		}
		for _, f := range exportFormats() {
			if f.contentType == kind {
				return f, nil
			}
		}
	}
	return nil, nil
}

// export streams a query's rows, page after page, and holds one page. Each page
// is as fresh as a query of its own. What fails after the first page cuts the
// stream off, since its status has gone out.
func (c *call) export(a queryAsk, format *exportFormat) (answer, error) {
	limits := c.hub.Limits()
	left := a.limit
	next := func(token string) (engine.QueryPage, error) {
		size := limits.QueryPage
		if a.limit > 0 {
			size = min(size, left)
		}
		p, err := c.hub.Query(c.r.Context(), c.caller, a.request(size, token))
		left -= len(p.Twins) + len(p.Rows)
		return p, err
	}
	p, err := next("")
	if err != nil {
		return answer{}, err
	}
	var columns []string
	if p.Item != engine.QueryTwins {
		if columns, err = c.columnsOf(a); err != nil {
			return answer{}, err
		}
	}
	c.w.Header().Set("Content-Type", format.contentType+"; charset=utf-8")
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return answer{sent: true}, nil
	}
	w := bufio.NewWriterSize(c.w, 64<<10)
	write := format.begin(w, columns)
	control := http.NewResponseController(c.w)
	for {
		c.wait(limits.QueryTime)
		if err := write(p); err != nil {
			return answer{sent: true}, nil // the client is gone
		}
		if err := w.Flush(); err != nil {
			return answer{sent: true}, nil
		}
		if p.Token == "" || a.limit > 0 && left <= 0 {
			return answer{sent: true}, nil
		}
		_ = control.Flush() // not supported by test recorders
		c.wait(limits.QueryTime + exportPatience)
		token := p.Token // a page that fails has none
		err := patiently(c.r.Context(), func() (err error) { p, err = next(token); return err })
		if err != nil {
			c.log.WarnContext(c.r.Context(), "an export of a query was cut off", slog.Any("error", err), slog.String("request_id", c.requestID))
			panic(http.ErrAbortHandler)
		}
	}
}

// How long an export waits for its next page where the hub throttles it: its
// rows so far would be lost.
const (
	exportPatience = 30 * time.Second
	exportPause    = time.Second
)

// patiently calls f again while it is throttled, up to exportPatience.
func patiently(ctx context.Context, f func() error) error {
	for until := time.Now().Add(exportPatience); ; {
		err := f()
		if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.CodeThrottled || !time.Now().Before(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(exportPause):
		}
	}
}

// lines writes a JSON object a line.
func lines(w *bufio.Writer, _ []string) rowWriter {
	return func(p engine.QueryPage) error {
		for _, item := range queryItems(p) {
			text, ok := item.(json.RawMessage)
			if !ok {
				text = encode(item)
			}
			_, _ = w.Write(text) // the writer keeps its first error
			if err := w.WriteByte('\n'); err != nil {
				return err
			}
		}
		return nil
	}
}

// twinColumns are the columns of whole twins. Sections are JSON, without
// metadata.
func twinColumns() []string {
	return []string{
		"deviceId", "moduleId", "status", "connectionState", "lastActivityTime", "modelId", "version", "etag",
		"tags", "desired", "reported",
	}
}

// commas writes a header and a line for each row. Texts and numbers are as they
// are, anything else is JSON; what is missing is empty.
func commas(w *bufio.Writer, columns []string) rowWriter {
	out := csv.NewWriter(w)
	begun := false
	return func(p engine.QueryPage) error {
		if !begun {
			begun = true
			head := columns
			if p.Item == engine.QueryTwins {
				head = twinColumns()
			}
			if err := out.Write(head); err != nil {
				return err
			}
		}
		for i := range p.Twins {
			t := &p.Twins[i]
			d := showTwin(*t)
			err := out.Write([]string{
				d.DeviceID, d.ModuleID, d.Status, d.ConnectionState, d.LastActivityTime, d.ModelID, strconv.FormatInt(d.Version, 10), d.ETag,
				string(t.Tags.Plain(nil)), string(t.Desired.Plain(nil)), string(t.Reported.Plain(nil)),
			})
			if err != nil {
				return err
			}
		}
		for _, row := range p.Rows {
			f, err := object(row, "")
			if err != nil {
				return err
			}
			line := make([]string, len(columns))
			for i, key := range columns {
				line[i] = csvCell(f.members[key])
			}
			if err := out.Write(line); err != nil {
				return err
			}
		}
		out.Flush()
		return out.Error()
	}
}

func csvCell(raw json.RawMessage) string {
	if len(raw) > 0 && raw[0] == '"' {
		return unquote(raw)
	}
	return string(raw)
}
