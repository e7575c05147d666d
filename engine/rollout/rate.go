package rollout

import (
	"math"
	"time"
)

const (
	bucketSeconds = 2 // worth of the rate that is kept
	rateWakeLeast = time.Second
)

// now is the rate at present, in starts a second.
func (r *Rate) now(s *State) float64 {
	perMinute := r.PerMinute
	if r.Factor > 1 && r.Every > 0 {
		n := s.Started
		if r.Of == RateOfSucceeded {
			total := s.Total()
			n = total.Succeeded
		}
		perMinute = min(r.Most, perMinute*math.Pow(r.Factor, float64(n/r.Every)))
	}
	return perMinute / 60
}

// refill brings the rate's bucket to a time. One that was never filled has one
// start in it.
func (p *Plan) refill(s *State, now time.Time) {
	r := p.policy.Rate
	if r == nil {
		return
	}
	perSecond := r.now(s)
	if s.TokensAt.IsZero() {
		s.Tokens, s.TokensAt = 1, now
		return
	}
	passed := max(0, now.Sub(s.TokensAt))
	s.Tokens = min(s.Tokens+passed.Seconds()*perSecond, max(1, bucketSeconds*perSecond))
	s.TokensAt = now
}

// tokens is how many starts the rate allows now.
func (p *Plan) tokens(s *State) int {
	if p.policy.Rate == nil {
		return math.MaxInt
	}
	return int(s.Tokens + 1e-6)
}

// nextToken is when the rate allows another start after these, or a second from
// now if that is sooner: what has come until then starts together.
func (p *Plan) nextToken(s *State, now time.Time, started int) time.Time {
	missing := max(0, 1-(s.Tokens-float64(started)))
	wait := missing / p.policy.Rate.now(s) * float64(time.Second)
	return now.Add(max(rateWakeLeast, time.Duration(math.Ceil(min(wait, math.MaxInt64/2)))))
}
