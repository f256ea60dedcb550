package bench

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-logr/logr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/membership"
	"crossway.dev/crossway/pkg/membership/gossip"
	"crossway.dev/crossway/pkg/membership/identity"
)

// gossip has the agent of each member gossip, as one does that nobody can dial, and waits until each replica hears all.
func (s *Scale) gossip(ctx context.Context) error {
	for _, m := range s.members {
		transport, place, err := s.memberAPI(ctx, m)
		if err != nil {
			return err
		}
		if err := s.startGossip(m, transport, place); err != nil {
			return err
		}
	}
	want := len(s.members) + len(s.fleet.Members)
	for _, pod := range s.pods {
		for alive := 0.0; alive < float64(want); {
			if err := pause(ctx, gap); err != nil {
				return fmt.Errorf("pod %s hears %.0f nodes of gossip, want %d: %w", pod, alive, want, err)
			}
			var err error
			if alive, err = s.counterOf(ctx, pod, `crossway_membership_nodes{state="Alive"}`); err != nil {
				return err
			}
		}
	}
	return nil
}

// startGossip starts an agent's part in gossip, until life ends. Its certificate comes from the member API.
func (s *Scale) startGossip(m *mockMember, transport *http.Transport, place map[string]string) error {
	to, err := url.Parse(place[v1alpha1.MemberAPIAddress])
	if err != nil {
		return err
	}
	own := identity.New(identity.Config{API: toHost{transport, to}, Log: logr.Discard()})
	node, err := gossip.New(gossip.Config{Name: membership.Member(fleet.ClusterName(m.name())), Fleet: place[v1alpha1.MemberAPIClusterSet], TLS: own, Log: logr.Discard(),
		Hub: func() []string { return []string{place[v1alpha1.MemberAPIGossip]} }, Dial: transport.DialContext})
	if err != nil {
		return err
	}
	go func() { _ = own.Start(s.life) }()  // it ends with life
	go func() { _ = node.Start(s.life) }() // who does not gossip is not heard
	return nil
}

// toHost sends requests to one host, whatever theirs.
type toHost struct {
	http.RoundTripper
	to *url.URL
}

func (t toHost) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = t.to.Scheme, t.to.Host
	return t.RoundTripper.RoundTrip(r)
}
