package service

import (
	"encoding/json"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"github.com/muster-hub/muster/engine"
	"github.com/muster-hub/muster/engine/auth"
)

// hubQueryRows is how many rows IoT Hub's path gives at most: its clients ask
// for anything, and expect no more.
const hubQueryRows = 100

const tagQueries = "Queries"

// queryRoutes are IoT Hub's.
func queryRoutes() []*route {
	return []*route{{
		method: http.MethodPost, pattern: "/devices/query", operation: "queryDevices", tag: tagQueries, permission: auth.ServiceConnect,
		summary: "Answers a query over twins, page by page: x-ms-max-item-count (1 to 100) rows, behind x-ms-continuation. The answer's x-ms-item-type says what its items are, and its x-ms-continuation, when it has one, begins the next page.",
		request: queryBody{}, response: []any{}, handle: queryDevices,
	}}
}

type queryBody struct {
	Query string `json:"query" doc:"SELECT ... FROM devices, devices.modules or devices.jobs."`
}

func queryDevices(c *call) (answer, error) {
	body, err := c.body()
	if err != nil {
		return answer{}, err
	}
	f, err := object(body, "")
	if err != nil {
		return answer{}, err
	}
	text, err := f.text("query")
	if err != nil {
		return answer{}, err
	}
	most, err := maxItems(c.r.Header)
	if err != nil {
		return answer{}, err
	}
	page, err := c.hub.Query(c.r.Context(), c.caller, engine.QueryRequest{Text: text, Max: most, Token: c.r.Header.Get("X-Ms-Continuation")})
	if err != nil {
		return answer{}, err
	}
	// Clients compare these names' case. Without more rows there is no
	// continuation: Node takes an empty one for another page.
	header := map[string]string{"x-ms-item-type": string(page.Item)}
	if page.Token != "" {
		header["x-ms-continuation"] = page.Token
	}
	return answer{body: itemsJSON(page), header: header}, nil
}

// maxItems returns how many rows the caller wants. More than IoT Hub gives is
// no error, however many: some clients always ask for 10,000.
func maxItems(h http.Header) (int, error) {
	text := h.Get("X-Ms-Max-Item-Count")
	if text == "" {
		return hubQueryRows, nil
	}
	n, err := strconv.ParseInt(text, 10, 64) // what is out of its range is the end of that
	if n < 1 || err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, invalid("the header x-ms-max-item-count is %q; expected a whole number from 1 on, of which more than %d count as that", clip(text), hubQueryRows)
	}
	return int(min(n, hubQueryRows)), nil
}

// queryItems are the items of a page as they are sent: a whole twin looks as
// when it is read by itself.
func queryItems(p engine.QueryPage) []any {
	list := make([]any, 0, len(p.Twins)+len(p.Rows))
	for _, t := range p.Twins {
		list = append(list, showTwin(t))
	}
	for _, r := range p.Rows {
		list = append(list, r)
	}
	return list
}

// itemsJSON is what encode makes of queryItems. All processors write twins: on a
// page of a hundred that takes as long as finding them.
func itemsJSON(p engine.QueryPage) json.RawMessage {
	parts := max(1, min(runtime.GOMAXPROCS(0), len(p.Twins)/twinsWritten))
	texts := make([][]byte, parts)
	var writing sync.WaitGroup
	for i := range parts {
		writing.Go(func() {
			texts[i] = twinsJSON(p.Twins[i*len(p.Twins)/parts : (i+1)*len(p.Twins)/parts])
		})
	}
	writing.Wait()
	b := texts[0]
	for _, text := range texts[1:] {
		b = append(append(b, ','), text[1:]...)
	}
	for _, r := range p.Rows {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, r...)
	}
	return append(b, ']')
}

// twinsWritten are worth a goroutine.
const twinsWritten = 16

// twinsJSON is the beginning of an array: it has no end yet.
func twinsJSON(list []engine.Twin) []byte {
	b := []byte{'['}
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		before := len(b)
		b = appendTwin(b, &list[i])
		if i == 0 { // the others tend to be as large
			b = slices.Grow(b, (len(b)-before)*(len(list)+len(list)/8))
		}
	}
	return b
}
