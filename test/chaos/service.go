package chaos

import (
	"fmt"
	"slices"
	"time"
)

// Answer is one GET of a client.
type Answer struct {
	At      time.Time // when it was due
	End     time.Time // when it was answered, or given up
	Region  string    // of the client
	Status  int       // 0: none
	Cluster string    // which answered
	Error   string
}

const (
	// quiet is how long nothing must be wrong, all at once, for a withdrawal to have reached every edge for sure.
	quiet = 60 * time.Second
	// after is how long what was told or has ended may still be on its way.
	after = 5 * time.Second
	// returns is how long a cluster that was cut off may get nothing: edges eject who does not answer for 10 s and more
	// (cut_return_seconds of the demo has the same bound).
	returns = 30 * time.Second
)

// span is a time in which something was so; a zero end: still.
type span struct{ begin, end time.Time }

// overlaps says whether the span and the time from begin to end have a moment in common.
func (s span) overlaps(begin, end time.Time) bool {
	return !s.begin.After(end) && (s.end.IsZero() || !s.end.Before(begin))
}

// Service is a service that clients call: which clusters exported it when, and what was wrong meanwhile. All that happened
// must be told before answers are judged.
type Service struct {
	exports map[string][]span
	faults  map[Act][]fault
}

type fault struct {
	span
	member string
}

// NewService is a service that nobody exports.
func NewService() *Service {
	return &Service{exports: map[string][]span{}, faults: map[Act][]fault{}}
}

// Exports says that a cluster exports the service from a time on; false where it already does.
func (s *Service) Exports(cluster string, at time.Time) bool {
	if s.exporting(cluster) {
		return false
	}
	s.exports[cluster] = append(s.exports[cluster], span{begin: at})
	return true
}

// Withdraws says that a cluster does not any longer.
func (s *Service) Withdraws(cluster string, at time.Time) {
	if s.exporting(cluster) {
		s.exports[cluster][len(s.exports[cluster])-1].end = at
	}
}

func (s *Service) exporting(cluster string) bool {
	spans := s.exports[cluster]
	return len(spans) > 0 && spans[len(spans)-1].end.IsZero()
}

// Exporters are the clusters that export the service now.
func (s *Service) Exporters() (out []string) {
	for cluster := range s.exports {
		if s.exporting(cluster) {
			out = append(out, cluster)
		}
	}
	slices.Sort(out)
	return out
}

// Fault says that something was wrong for a time.
func (s *Service) Fault(step Step, begin, end time.Time) {
	s.faults[step.Act] = append(s.faults[step.Act], fault{span{begin, end}, step.Member})
}

// Judge says of each answer that is not allowed why. Answers are in the order of their time.
func (s *Service) Judge(answers []Answer) (wrong []string) {
	served := map[string]time.Time{} // by cluster: its first answer since it exported
	for _, a := range answers {
		if a.Status == 200 {
			if !s.exportedThroughout(a.Cluster, served[a.Cluster], a.At) {
				served[a.Cluster] = a.At
			}
			if why := s.mayServe(a); why != "" {
				wrong = append(wrong, why)
			}
			continue
		}
		if cluster := s.sure(a, served); cluster != "" && !s.blindEdges(a) {
			wrong = append(wrong, fmt.Sprintf("%s: a client in %s got %d %s after %s, although %s exports the service and was reached",
				a.At.Format("15:04:05.000"), a.Region, a.Status, a.Error, a.End.Sub(a.At).Round(time.Millisecond), cluster))
		}
	}
	return wrong
}

func (s *Service) exportedThroughout(cluster string, begin, end time.Time) bool {
	return slices.ContainsFunc(s.exports[cluster], func(e span) bool {
		return e.begin.Before(begin) && (e.end.IsZero() || e.end.After(end))
	})
}

// mayServe says why the cluster that answered may not.
func (s *Service) mayServe(a Answer) string {
	last := time.Time{}
	for _, e := range s.exports[a.Cluster] {
		if e.overlaps(a.At, a.End) {
			return ""
		}
		if e.begin.Before(a.End) {
			last = e.end
		}
	}
	if last.IsZero() {
		return fmt.Sprintf("%s: %s answered a client in %s, and never exported the service", a.At.Format("15:04:05.000"), a.Cluster, a.Region)
	}
	if calm := s.longestQuiet(last, a.At); calm > quiet {
		return fmt.Sprintf("%s: %s answered a client in %s, withdrew the service %s before, and nothing was wrong for %s since", a.At.Format("15:04:05.000"),
			a.Cluster, a.Region, a.At.Sub(last).Round(time.Second), calm.Round(time.Second))
	}
	return ""
}

// longestQuiet is the longest time between two moments in which nothing was wrong.
func (s *Service) longestQuiet(begin, end time.Time) time.Duration {
	var all []span
	for _, faults := range s.faults {
		for _, f := range faults {
			all = append(all, f.span)
		}
	}
	slices.SortFunc(all, func(a, b span) int { return a.begin.Compare(b.begin) })
	longest, at := time.Duration(0), begin
	for _, f := range all {
		if f.begin.Before(end) && f.begin.After(at) {
			longest = max(longest, f.begin.Sub(at))
		}
		if f.end.After(at) {
			at = f.end
		}
	}
	return max(longest, end.Sub(at))
}

// sure is a cluster that must have served a client: it has served others for a while since it exported, it was not
// withdrawn while the request was under way, and its link was not down shortly before or meanwhile.
func (s *Service) sure(a Answer, served map[string]time.Time) string {
	var sure []string
	for cluster, first := range served {
		cut := slices.ContainsFunc(s.faults[CutMember], func(f fault) bool {
			return f.member == cluster && f.overlaps(a.At.Add(-returns), a.End)
		})
		if !cut && first.Add(after).Before(a.At) && s.exportedThroughout(cluster, first, a.End) {
			sure = append(sure, cluster)
		}
	}
	if len(sure) == 0 {
		return ""
	}
	return slices.Min(sure)
}

// blindEdges says whether a cluster was cut off while no replica of the hub was there to tell the edges.
func (s *Service) blindEdges(a Answer) bool {
	near := func(f fault) bool { return f.overlaps(a.At.Add(-2*after), a.End) }
	return slices.ContainsFunc(s.faults[KillHubs], near) && slices.ContainsFunc(s.faults[CutMember], near)
}
