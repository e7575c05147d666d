package engine

import (
	"context"
	"time"
)

// DoctorPatterns is what the doctor would say of patterns at another time.
func (h *Hub) DoctorPatterns(ctx context.Context, now time.Time) []Finding {
	return h.doctorPatterns(ctx, now)
}
