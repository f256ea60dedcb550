package batch

import (
	"sync"
	"testing"
)

func TestInboxCollectsUntilDrained(t *testing.T) {
	inbox := NewInbox(func() []int { return nil })
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() { inbox.Add(func(p *[]int) { *p = append(*p, i) }) })
	}
	group.Wait()
	<-inbox.Wake()
	if got := inbox.Drain(); len(got) != 50 {
		t.Errorf("drained %d changes, want 50", len(got))
	}
	if got := inbox.Drain(); len(got) != 0 {
		t.Errorf("drained %v a second time", got)
	}
	select {
	case <-inbox.Wake():
		t.Error("fifty changes were signalled twice")
	default:
	}
}

func TestInboxWakesOnlyWhereAsked(t *testing.T) {
	inbox := NewInbox(func() int { return 0 })
	inbox.AddIf(func(p *int) bool { *p++; return false })
	select {
	case <-inbox.Wake():
		t.Error("woke without being asked to")
	default:
	}
	inbox.AddIf(func(p *int) bool { *p++; return true })
	<-inbox.Wake()
	if got := inbox.Drain(); got != 2 {
		t.Errorf("drained %d, want 2", got)
	}
}
