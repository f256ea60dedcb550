package traffic

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// secondOf is one report of each named edge for a second that ends at a time.
func secondOf(d *Demand, second int, requests map[string]uint64) {
	for _, edge := range []string{"a", "b", "c"} {
		if n, reports := requests[edge]; reports {
			d.Observe(Sample{Edge: edge, End: epoch.Add(time.Duration(second) * time.Second), Interval: time.Second, Issued: n, Succeeded: n})
		}
	}
}

// An edge of which there is no word keeps its part of the demand, however long, and is counted once when it reports again.
func TestAnEdgeIsAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64Range(5, 300).Draw(t, "a"), rapid.Uint64Range(5, 300).Draw(t, "b")
		gone, length := rapid.IntRange(10, 15).Draw(t, "gone"), rapid.IntRange(1, 90).Draw(t, "length")
		gap := rapid.Bool().Draw(t, "the first report covers the gap")
		var d Demand
		for second := 1; second < gone+length+20; second++ {
			switch {
			case second == gone:
				d.Away("b", epoch.Add(time.Duration(second)*time.Second))
				fallthrough
			case second < gone+length && second > gone:
				secondOf(&d, second, map[string]uint64{"a": a})
			case second == gone+length && gap:
				seconds := uint64(length + 1)
				d.Observe(Sample{Edge: "b", End: epoch.Add(time.Duration(second) * time.Second), Interval: time.Duration(seconds) * time.Second, Issued: seconds * b, Succeeded: seconds * b})
				fallthrough
			default:
				secondOf(&d, second, map[string]uint64{"a": a, "b": b})
			}
			if second > 8 && !near(d.Rate(), float64(a+b), 0.001) {
				t.Fatalf("second %d: %v of %d", second, d.Rate(), a+b)
			}
		}
	})
}

// While an edge is away, clients move between the others and it: all of them to one, and away from it. They count once, and
// only what exceeds all that was sent before is new.
func TestClientsMoveWhileAnEdgeIsAway(t *testing.T) {
	var d Demand
	for second := 1; second < 80; second++ {
		requests := map[string]uint64{"a": 30, "b": 50}
		switch {
		case second > 60:
			requests = map[string]uint64{"a": 100}
		case second > 40:
			requests = map[string]uint64{"a": 0}
		case second > 23:
			requests = map[string]uint64{"a": 80}
		case second >= 20:
			requests = map[string]uint64{"a": 30}
		}
		if second == 20 {
			d.Away("b", epoch.Add(20*time.Second))
		}
		secondOf(&d, second, requests)
		want := 80.0
		if second > 62 {
			want = 100
		}
		if second > 8 && (second < 61 || second > 68) && !near(d.Rate(), want, 0.01) {
			t.Errorf("second %d: %v, not %v", second, d.Rate(), want)
		}
	}
	d.ForgetEdge("b")
	secondOf(&d, 80, map[string]uint64{"a": 100})
	if !near(d.Rate(), 100, 0.01) {
		t.Errorf("after b was forgotten: %v", d.Rate())
	}
}

// Both edges are away, and the one that lost its clients to the other reports first.
func TestTheEdgeWithoutClientsIsBackFirst(t *testing.T) {
	var d Demand
	for second := 1; second < 40; second++ {
		switch {
		case second < 20:
			secondOf(&d, second, map[string]uint64{"a": 240, "b": 0})
		case second == 20:
			d.Away("a", epoch.Add(20*time.Second))
			d.Away("b", epoch.Add(20*time.Second))
		case second < 28:
			secondOf(&d, second, map[string]uint64{"a": 0})
		default:
			secondOf(&d, second, map[string]uint64{"a": 0, "b": 240})
		}
		if second > 8 && !near(d.Rate(), 240, 0.02) {
			t.Errorf("second %d: %v", second, d.Rate())
		}
	}
}

// Just after a rise nothing is averaged yet. An edge that is away then keeps what it sent last, and so do the others.
func TestAnEdgeIsAwayAfterARise(t *testing.T) {
	for _, first := range []int{2, 20} { // of the import's first requests, or later
		var d Demand
		for second := 1; second < 40; second++ {
			requests := map[string]uint64{"a": 10, "b": 10, "c": 10}
			if second >= first {
				requests = map[string]uint64{"a": 80, "b": 130, "c": 140}
			}
			if second > first {
				delete(requests, "b")
			}
			secondOf(&d, second, requests)
			if second == first {
				d.Away("b", epoch.Add(time.Duration(second)*time.Second))
			}
			if second > first+1 && !near(d.Rate(), 350, 0.01) {
				t.Errorf("second %d: %v", second, d.Rate())
			}
		}
	}
}

// Several edges are away, and one of them is back without its clients.
func TestAnEdgeIsBackWithoutItsClients(t *testing.T) {
	var d Demand
	for second := 1; second < 50; second++ {
		switch {
		case second < 20:
			secondOf(&d, second, map[string]uint64{"a": 30, "b": 50, "c": 20})
		case second == 20:
			d.Away("b", epoch.Add(20*time.Second))
			d.Away("c", epoch.Add(20*time.Second))
			fallthrough
		case second < 24:
			secondOf(&d, second, map[string]uint64{"a": 30})
		default: // half of b's clients are at a
			secondOf(&d, second, map[string]uint64{"a": 55, "b": 25})
		}
		if second > 8 && !near(d.Rate(), 100, 0.06) {
			t.Errorf("second %d: %v", second, d.Rate())
		}
	}
}

// An edge that was never counted is not away.
func TestAnUnknownEdgeIsNotAway(t *testing.T) {
	var d Demand
	d.Away("x", epoch)
	d.ForgetAway("x")
	for second := 1; second < 10; second++ {
		secondOf(&d, second, map[string]uint64{"a": 10})
	}
	if d.Rate() != 10 || fmt.Sprint(d.away.rates) != "map[]" {
		t.Errorf("%v, %v", d.Rate(), d.away.rates)
	}
}

// A replica of the hub that has just started goes on with the demand that another one said, until all edges report to it.
func TestExpectedDemand(t *testing.T) {
	var d Demand
	d.Expect(300, []string{"a", "b"})
	secondOf(&d, 1, map[string]uint64{"a": 130})
	d.Away("a", epoch.Add(2*time.Second))
	secondOf(&d, 3, map[string]uint64{"b": 150})
	if d.Rate() != 300 {
		t.Errorf("%v while a is away, not 300", d.Rate())
	}
	for second := 4; second < 15; second++ {
		secondOf(&d, second, map[string]uint64{"a": 100, "b": 100})
	}
	if !near(d.Rate(), 200, 0.001) {
		t.Errorf("%v when both report, not 200", d.Rate())
	}
}
