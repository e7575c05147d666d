package service

import (
	"net/http"

	"github.com/muster-hub/muster/engine"
)

func (c *call) putIdentity() (engine.Identity, error) {
	body, err := c.body()
	if err != nil {
		return engine.Identity{}, err
	}
	i, err := parseIdentity(body, c.target())
	if err != nil {
		return engine.Identity{}, err
	}
	// The ETag in the body counts for nothing: without If-Match a PUT creates.
	if m := c.ifMatch(); m.Present {
		return c.hub.UpdateIdentity(c.r.Context(), c.caller, i, m)
	}
	return c.hub.CreateIdentity(c.r.Context(), c.caller, i)
}

func putDevice(c *call) (answer, error) {
	i, err := c.putIdentity()
	return answer{body: showDevice(i), etag: i.ETag}, err
}

func getDevice(c *call) (answer, error) {
	i, err := c.hub.Identity(c.r.Context(), c.caller, c.target())
	return answer{body: showDevice(i), etag: i.ETag}, err
}

func deleteIdentity(c *call) (answer, error) {
	return answer{status: http.StatusNoContent}, c.hub.DeleteIdentity(c.r.Context(), c.caller, c.target(), c.ifMatch())
}

func listDevices(c *call) (answer, error) {
	most := c.hub.Limits().ListIdentities
	top, err := c.integer("top", most, 1, most)
	if err != nil {
		return answer{}, err
	}
	list, _, err := c.hub.Devices(c.r.Context(), c.caller, "", "", top)
	return answer{body: show(list, showDevice)}, err
}

func putModule(c *call) (answer, error) {
	i, err := c.putIdentity()
	return answer{body: showModule(i), etag: i.ETag}, err
}

func getModule(c *call) (answer, error) {
	i, err := c.hub.Identity(c.r.Context(), c.caller, c.target())
	return answer{body: showModule(i), etag: i.ETag}, err
}

func listModules(c *call) (answer, error) {
	list, err := c.hub.Modules(c.r.Context(), c.caller, c.params[0])
	return answer{body: show(list, showModule)}, err
}

// show translates a list; the result is never nil, so that it encodes as an array.
func show[T, D any](list []T, one func(T) D) []D {
	docs := make([]D, 0, len(list))
	for _, v := range list {
		docs = append(docs, one(v))
	}
	return docs
}

type deviceStatistics struct {
	Total    int64 `json:"totalDeviceCount"`
	Enabled  int64 `json:"enabledDeviceCount"`
	Disabled int64 `json:"disabledDeviceCount"`
}

type serviceStatistics struct {
	Connected int64 `json:"connectedDeviceCount"`
}

func getDeviceStatistics(c *call) (answer, error) {
	s, err := c.hub.Statistics(c.r.Context(), c.caller)
	return answer{body: deviceStatistics{s.Devices, s.Enabled, s.Disabled}}, err
}

func getServiceStatistics(c *call) (answer, error) {
	s, err := c.hub.Statistics(c.r.Context(), c.caller)
	return answer{body: serviceStatistics{s.Connected}}, err
}
