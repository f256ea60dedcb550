package server

import (
	"context"
	"time"

	"crossway.dev/crossway/pkg/fleet"
)

const (
	// behindTime is how long a reader that comes from another replica waits until this one
	// has seen as much. What it lacks after that, an etcd that was restored lacks.
	behindTime = 30 * time.Second
	// behindInterval is how often a waiting reader looks.
	behindInterval = 20 * time.Millisecond
	// maxBehind is how many readers of one member wait: its agent has two. Anybody can say
	// that he has seen what nobody has.
	maxBehind = 8
)

// catchUp waits until this replica has seen a resourceVersion of a pushed slice that a
// reader has read from another one. Else the list that the reader asks for next would take
// it back to an older state, for as long as this replica's watch of the API server is behind.
func (s *Server) catchUp(ctx context.Context, cluster fleet.ClusterName, seen uint64) {
	if s.hasSeen(seen) || !s.beginBehind(cluster) {
		return
	}
	defer s.endBehind(cluster)
	end := s.config.Clock.NewTimer(behindTime)
	defer end.Stop()
	look := s.config.Clock.NewTicker(behindInterval)
	defer look.Stop()
	for !s.hasSeen(seen) {
		select {
		case <-look.C():
		case <-end.C():
			return
		case <-ctx.Done():
			return
		}
	}
}

// beginBehind counts a reader that waits, or says that there are too many of its member.
func (s *Server) beginBehind(cluster fleet.ClusterName) bool {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	c := s.stateOf(cluster)
	if c.behind >= maxBehind {
		return false
	}
	c.behind++
	return true
}

func (s *Server) endBehind(cluster fleet.ClusterName) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	s.stateOf(cluster).behind--
}

func (s *Server) hasSeen(version uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return max(s.state.Seen(), s.listed.Load()) >= version
}
