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
	// handTime is how long what the informer has read may take to reach the State.
	handTime = time.Second
	// behindInterval is how often a waiting reader looks.
	behindInterval = 20 * time.Millisecond
	// maxBehind is how many readers of one member wait: its agent has two. Anybody can say
	// that he has seen what nobody has.
	maxBehind = 8
)

// catchUp waits until this replica has seen a resourceVersion of a pushed slice that a
// reader has read from another one. Else the list that the reader asks for next would take
// it back to an older state, for as long as this replica's watch of the API server is behind.
//
// After a watch that broke, a list may have come in place of the event that the reader has
// read, and be without the object. So what the informer has read is here soon after.
func (s *Server) catchUp(ctx context.Context, cluster fleet.ClusterName, seen uint64) {
	if s.hasSeen(seen) || !s.beginBehind(cluster) {
		return
	}
	defer s.endBehind(cluster)
	end := s.config.Clock.NewTimer(behindTime)
	defer end.Stop()
	look := s.config.Clock.NewTicker(behindInterval)
	defer look.Stop()
	for read := time.Duration(0); !s.hasSeen(seen) && read < handTime; {
		select {
		case <-look.C():
			if read += behindInterval; !s.hasRead(seen) {
				read = 0
			}
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

func (s *Server) hasRead(version uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.read() >= version
}

func (s *Server) setRead(read func() uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = read
}

func (s *Server) hasSeen(version uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return max(s.state.Seen(), s.listed.Load()) >= version
}
