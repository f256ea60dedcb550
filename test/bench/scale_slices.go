package bench

import (
	"context"
	"fmt"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
)

// scaleSingles is the number of single changes of slices.
const scaleSingles = 100

// slices measures single changes of members' slices, until the last Envoy and until the last edge of all pools has ACKed.
// kind begins the names of the figures.
func (s *Scale) slices(ctx context.Context, kind string) error {
	envoys := map[string]bool{}
	for _, e := range s.envoys {
		envoys[e.name] = true
	}
	var toEnvoys, toAll, envoy []time.Duration
	for i := range scaleSingles {
		s.turn++
		m := s.members[i*7%len(s.members)]
		k := i * 13 % len(m.exports)
		mark, began := s.log.Mark(), time.Now()
		names := assignmentOf(m.exports[k])
		real := &Passage{Edges: len(envoys), Type: "assignment", Names: names, Began: began}
		all := &Passage{Edges: len(envoys) + len(s.edges), Type: "assignment", Names: names, Began: began}
		if err := m.write(ctx, k, m.anotherLast(s.turn)); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := s.log.Follow(limited, mark, func(e Event) bool {
			if envoys[e.Node] {
				real.See(e)
			}
			return all.See(e)
		})
		cancel()
		if err != nil {
			return fmt.Errorf("change %d, of %s in %s: %s: %w", i, m.exports[k].name, m.name(), all, err)
		}
		toEnvoys, toAll, envoy = append(toEnvoys, real.ToAck()), append(toAll, all.ToAck()), append(envoy, real.PushToAck())
		if err := pause(ctx, gap); err != nil {
			return err
		}
	}
	s.figures["scale_"+kind+"slice_to_ack_ms"], s.figures["scale_"+kind+"slice_to_all_ms"] = Millis(toEnvoys), Millis(toAll)
	s.figures["scale_"+kind+"slice_push_to_ack_ms"] = Millis(envoy)
	bare, err := s.bareSlices(ctx)
	s.figures["scale_"+kind+"slice_bare_ms"] = Millis(bare)
	return err
}

// bareSlices is the time of the same writes until a bare client's watch has them. The hub reads these slices, too, and
// ignores them: they name no service.
func (s *Scale) bareSlices(ctx context.Context) ([]time.Duration, error) {
	m := s.members[0]
	write := func(turn int) error {
		o := m.slice(0, m.anotherLast(turn))
		o.Name, o.Labels, o.OwnerReferences = "bare", nil, nil
		return apply.Object(ctx, m.agent, v1alpha1.AgentFieldManager, o)
	}
	return seen(ctx, func() (watch.Interface, error) {
		return s.hub.Watch(ctx, &discoveryv1.EndpointSliceList{}, client.InNamespace(m.namespace()), client.MatchingFields{"metadata.name": "bare"})
	}, write)
}
