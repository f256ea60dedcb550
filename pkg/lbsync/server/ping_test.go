package server

import (
	"sync"
	"testing"
	"time"
)

// A server answers no Ping while one of its locks is held, whichever it is.
func TestPing(t *testing.T) {
	s := New(Config{})
	p := s.pool("us")
	for what, lock := range map[string]*sync.Mutex{"the server": &s.mu, "a pool": &p.mu} {
		lock.Lock()
		answered := make(chan struct{})
		go func() { s.Ping(); close(answered) }()
		select {
		case <-answered:
			t.Errorf("it answers although the lock of %s is held", what)
		case <-time.After(20 * time.Millisecond):
		}
		lock.Unlock()
		<-answered
	}
}
