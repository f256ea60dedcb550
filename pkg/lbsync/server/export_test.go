package server

import (
	"time"

	"crossway.dev/crossway/pkg/replica"
)

// SetTimes are other times of a Spreader than its own.
func (p *Spreader) SetTimes(move, stay time.Duration) {
	p.times = spreadTimes{tell: 10 * time.Millisecond, settle: 10 * time.Millisecond, move: move, stay: stay}
	p.moves = replica.NewMoves(move)
}

// SetStrayTime is another time than a minute. It is called before the server is registered.
func (s *Server) SetStrayTime(d time.Duration) { s.strayTime = d }
