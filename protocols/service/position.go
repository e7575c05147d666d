package service

import (
	"net/http"

	"github.com/muster-hub/muster/engine/auth"
)

type positionDocument struct {
	Epoch         string `json:"epoch"`
	EpochNumber   uint32 `json:"epochNumber" doc:"From 1 on; a restore makes the next one."`
	Sequence      uint64 `json:"sequence" doc:"The newest commit. A backup names the one that it holds."`
	OldestMessage uint64 `json:"oldestMessage" doc:"Position of the oldest device-to-cloud message that is kept; one above newestMessage when there is none."`
	NewestMessage uint64 `json:"newestMessage"`
}

func positionRoutes() []*route {
	return []*route{{
		method: http.MethodGet, pattern: "/api/v1/position", operation: "getPosition", tag: tagHub, permission: auth.ServiceConnect, shape: shapeProblem,
		summary:  "Says how far the hub's stores have come: what was acknowledged before the question lies at or before the answer, what is sent after it lies behind.",
		response: positionDocument{}, handle: getPosition,
	}}
}

func getPosition(c *call) (answer, error) {
	p, err := c.hub.Position(c.r.Context(), c.caller)
	return answer{body: positionDocument{p.Epoch, p.EpochNumber, p.Sequence, p.OldestMessage, p.NewestMessage}}, err
}
