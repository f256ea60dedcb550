package state

import (
	"math"
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/lbsync/traffic"
)

// setDrain replaces the drain of us-west.
func setDrain(s *State, d *v1alpha1.MemberDrain) {
	m := s.MemberCluster("us-west").DeepCopy()
	m.Spec.Drain = d
	c := NewChanges()
	c.Members[m.Name] = m
	s.Apply(c)
}

func ramp(from, to int32, begin time.Time, over time.Duration) *v1alpha1.MemberDrain {
	start, end := metav1.NewTime(begin), metav1.NewTime(begin.Add(over))
	return &v1alpha1.MemberDrain{From: from, Percent: to, StartTime: &start, EndTime: &end}
}

func partOfWest(s *State, service string) float64 {
	return float64(s.backends[importNamed(service)].sharesOf("us").PartsOf("us-west")) / traffic.TotalParts
}

// A drain over two minutes moves the shares of all imports in a straight line: with a rate (web) and without (api), in at
// most 50 steps that are a second apart, and each of them changes all assignments.
func TestDrainOverTime(t *testing.T) {
	s, over := newFleet(), 2*time.Minute
	setDrain(s, ramp(0, 100, start, over))
	steps := 0
	for tick := time.Duration(0); tick <= over; tick += 200 * time.Millisecond {
		before := partOfWest(s, "web")
		changed := s.Update(start.Add(tick))
		if partOfWest(s, "web") != before {
			if steps++; len(changed) != 3 {
				t.Fatalf("a step changed %v", changed)
			}
		}
		line := 1 - float64(tick)/float64(over)
		for _, service := range []string{"web", "api"} {
			if got := partOfWest(s, service); math.Abs(got-line) > 0.021 {
				t.Fatalf("after %s us-west has %v of %s, the line %v", tick, got, service, line)
			}
		}
	}
	if steps != drainSteps {
		t.Errorf("the drain took %d steps", steps)
	}
	if partOfWest(s, "web") != 0 || partOfWest(s, "api") != 0 {
		t.Errorf("at the end us-west has %v of web and %v of api", partOfWest(s, "web"), partOfWest(s, "api"))
	}
}

// A short drain makes one step a second and a last one at its end, which is in time.
func TestShortDrain(t *testing.T) {
	s := newFleet()
	setDrain(s, ramp(0, 100, start, 10*time.Second))
	steps := 0
	for tick := time.Duration(0); tick <= 10*time.Second; tick += 200 * time.Millisecond {
		before := partOfWest(s, "api")
		if s.Update(start.Add(tick)); partOfWest(s, "api") != before {
			steps++
		}
	}
	if steps > 11 || partOfWest(s, "api") != 0 {
		t.Errorf("%d steps; us-west has %v", steps, partOfWest(s, "api"))
	}
}

// It stops where it is told to, goes back, and ends when the field is removed; a hub that starts half way goes on there.
func TestDrainStopsAndGoesBack(t *testing.T) {
	s := newFleet()
	setDrain(s, ramp(0, 100, start, 100*time.Second))
	s.Update(start.Add(40 * time.Second))
	setDrain(s, &v1alpha1.MemberDrain{Percent: 41})
	s.Update(start.Add(41 * time.Second))
	s.Update(start.Add(time.Hour))
	if got := partOfWest(s, "web"); got != 0.59 {
		t.Errorf("stopped at 41 %%: us-west has %v", got)
	}
	setDrain(s, ramp(41, 0, start.Add(time.Hour), 41*time.Second))
	s.Update(start.Add(time.Hour + 21*time.Second))
	if got := partOfWest(s, "web"); got != 0.8 {
		t.Errorf("half way back us-west has %v", got)
	}
	started := newFleet()
	setDrain(started, ramp(41, 0, start.Add(time.Hour), 41*time.Second))
	started.Update(start.Add(time.Hour + 21*time.Second))
	if got := partOfWest(started, "web"); got != 0.8 {
		t.Errorf("after a start half way us-west has %v", got)
	}
	setDrain(s, nil)
	s.Update(start.Add(time.Hour + 22*time.Second))
	if got := partOfWest(s, "web"); got != 1 || len(s.Drained()) != 0 {
		t.Errorf("without a drain us-west has %v; drained %v", got, s.Drained())
	}
}

// A member that is deleted while it drains is forgotten.
func TestDrainOfAMemberThatIsDeleted(t *testing.T) {
	s := newFleet()
	setDrain(s, &v1alpha1.MemberDrain{Percent: 100})
	s.Update(start)
	c := NewChanges()
	c.Members["us-west"] = nil
	s.Apply(c)
	s.Update(start.Add(time.Second))
	if len(s.drained) != 0 {
		t.Errorf("drained: %v", s.drained)
	}
}

// Open requests are those of each assignment when it was last reported: a report without it says nothing about it.
func TestOpenRequests(t *testing.T) {
	s := newFleet()
	edge := Edge{Pool: "us", Region: "us", Node: "one"}
	s.Connected(edge, start)
	s.Learn(edge, nil, start)
	report := func(assignment, subZone string, open uint64) []OpenRequests {
		c := NewChanges()
		c.Loads = []LoadReport{{Edge: edge, At: start, Loads: []Load{{Assignment: assignment, Interval: time.Second,
			Localities: []LocalityLoad{{SubZone: subZone, Open: open}}}}}}
		s.Apply(c)
		return s.OpenRequests()
	}
	report("nothing", "us-west/shop/web", 9)
	report("a", "us-west/shop/nothing", 9)
	report("a", "us-west/shop/web", 2)
	want := []OpenRequests{{importNamed("web"), "us", "us-west", 5}}
	if got := report("c", "us-west/shop/web", 3); !reflect.DeepEqual(got, want) {
		t.Errorf("open: %+v, want %+v", got, want)
	}
	want[0].Count = 3
	if got := report("a", "us-west/shop/web", 0); !reflect.DeepEqual(got, want) {
		t.Errorf("open: %+v, want %+v", got, want)
	}
	s.SetAssignments(nil, nil)
	if len(s.edges[edge.Key()].open) != 0 {
		t.Error("open requests of assignments that are gone are kept")
	}
}
