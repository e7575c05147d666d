package service

import (
	"encoding/json"
	"net/http"
	"strconv"

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
// no error: some clients always ask for 10,000.
func maxItems(h http.Header) (int, error) {
	text := h.Get("X-Ms-Max-Item-Count")
	if text == "" {
		return hubQueryRows, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return 0, invalid("the header x-ms-max-item-count is not a whole number from 1 to %d", hubQueryRows)
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

// itemsJSON is what encode makes of queryItems.
func itemsJSON(p engine.QueryPage) json.RawMessage {
	b := []byte{'['}
	next := func() {
		if len(b) > 1 {
			b = append(b, ',')
		}
	}
	for _, t := range p.Twins {
		next()
		d := showTwin(t)
		b = d.append(b)
	}
	for _, r := range p.Rows {
		next()
		b = append(b, r...)
	}
	return append(b, ']')
}
