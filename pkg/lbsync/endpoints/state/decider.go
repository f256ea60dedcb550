package state

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// candidateTimeout is how long a candidate counts that says nothing new: each says something each second, so one whose
	// loop is stuck does not go on deciding.
	candidateTimeout = 3 * time.Second
	// readyAfter is how long a replica has heard of the fleet before others rely on it: edges report each second, and their
	// demand needs four of them (traffic.Demand). After readyAtLast it does not wait for an edge that never reports.
	readyAfter  = 6 * time.Second
	readyAtLast = 30 * time.Second
	reportsFor  = 4 * time.Second
)

// Candidate is what a replica says of itself: whether it may divide the demand for all.
type Candidate struct {
	Name string `json:"name"`
	// Ready: it knows what edges send. Decides: it divides the demand, by what it knows of the others.
	Ready   bool `json:"ready"`
	Decides bool `json:"decides"`
	// Second changes each second, while the replica's loop is alive.
	Second int64 `json:"second"`
	// Hears are the replicas that it hears, joined by commas so that a Candidate is comparable.
	Hears string `json:"hears,omitempty"`
}

// hears says whether it hears a replica. One that does not knows nothing of that one's edges, and must not divide their demand.
func (c Candidate) hears(name string) bool { return slices.Contains(strings.Split(c.Hears, ","), name) }

// Decider is the name of the replica that divides the demand, by what one of them knows: the one that does already, as long
// as it is heard and ready, so that a newcomer changes nothing. Where several or none do (after a split of the network, or
// the end of the one that did) it is the first by name of those that are ready. While none is, each decides itself.
func Decider(self Candidate, heard []Candidate) string {
	ready := slices.DeleteFunc(append(slices.Clone(heard), self), func(c Candidate) bool { return !c.Ready })
	if len(ready) == 0 {
		return self.Name
	}
	return slices.MinFunc(ready, func(a, b Candidate) int {
		return cmp.Or(compareBools(b.Decides, a.Decides), cmp.Compare(a.Name, b.Name))
	}).Name
}

// SetPeersHeard says that each other replica was heard, or is not there.
func (s *State) SetPeersHeard() { s.replicas.peersHeard = true }

// Leave says that this replica stops soon: it follows another one, as the others do that hear of it.
func (s *State) Leave() { s.replicas.leaving = true }

// Candidate is what this replica says of itself.
func (s *State) Candidate(now time.Time) Candidate {
	stands := s.replicas.ready && !s.replicas.leaving
	var hears []string
	for name, o := range s.replicas.others {
		if o.heard {
			hears = append(hears, name)
		}
	}
	slices.Sort(hears)
	return Candidate{Name: s.hub.Replica, Ready: stands, Decides: stands && s.decides(), Second: now.Unix(), Hears: strings.Join(hears, ",")}
}

// Decider is the name of the replica whose shares are in force here.
func (s *State) Decider() string { return s.replicas.decider }

func (s *State) decides() bool { return s.replicas.decider == s.hub.Replica }

// elect says who decides. Where that changes, all demand is divided again. A replica that is leaving is not elected, unless it
// is the only one, nor one that does not hear this one: then it is as if they did not hear each other.
func (s *State) elect(now time.Time) {
	r := &s.replicas
	ready, decider := r.ready, r.decider
	s.readReady(now)
	var heard []Candidate
	for _, name := range slices.Sorted(maps.Keys(r.others)) {
		if o := r.others[name]; o.heard && !o.leaving && now.Sub(o.saidAt) < candidateTimeout && o.candidate.hears(s.hub.Replica) {
			heard = append(heard, o.candidate)
		}
	}
	r.decider = Decider(s.Candidate(now), heard)
	if r.decider != decider || r.ready != ready {
		s.divideAll()
	}
}

// divideAll has all demand divided again.
func (s *State) divideAll() {
	for _, b := range s.backends {
		s.dirty.backends[b] = true
	}
}

// readReady says whether other replicas may rely on this one. Once they may, it stays so.
func (s *State) readReady(now time.Time) {
	r := &s.replicas
	if r.ready || !r.assignmentsSet || !r.peersHeard {
		return
	}
	if r.since.IsZero() {
		r.since = now
	}
	reported := true
	for _, e := range s.edges {
		reported = reported && (!e.connected || !e.reportedSince.IsZero() && now.Sub(e.reportedSince) >= reportsFor)
	}
	heardFor := now.Sub(r.since)
	r.ready = heardFor >= readyAfter && reported || heardFor >= readyAtLast
}
