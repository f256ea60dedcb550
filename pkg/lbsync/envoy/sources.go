package envoy

import (
	"strings"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
)

// Kinds of sources that are not routes.
const (
	GatewayKind fleet.Kind = "Gateway"
	SecretKind  fleet.Kind = "Secret"
)

func gatewayRef(name fleet.ObjectName) fleet.ObjectRef {
	return fleet.ObjectRef{Kind: GatewayKind, Name: name}
}

// secretRef refers to the Secret of a model.Secret's name, "namespace/name".
func secretRef(name string) fleet.ObjectRef {
	namespace, name, _ := strings.Cut(name, "/")
	return fleet.ObjectRef{Kind: SecretKind, Name: fleet.ObjectName{Namespace: namespace, Name: name}}
}

// listenerSources are the Gateway and the TCP routes of a listener.
func listenerSources(l lbsync.Listener) []fleet.ObjectRef {
	sources := []fleet.ObjectRef{gatewayRef(l.Gateway)}
	for _, c := range l.Chains {
		if c.TCP != nil {
			sources = append(sources, c.TCP.Origin.Route)
		}
	}
	return unique(sources)
}

// appendRoutes adds the routes of some rules, in their order. Rules of one route mostly follow each other.
func appendRoutes(sources []fleet.ObjectRef, rules []model.Rule) []fleet.ObjectRef {
	for i := range rules {
		if route := rules[i].Origin.Route; len(sources) == 0 || route != sources[len(sources)-1] {
			sources = append(sources, route)
		}
	}
	return sources
}

// unique removes all but the first of equal references.
func unique(refs []fleet.ObjectRef) []fleet.ObjectRef {
	if len(refs) <= 2 { // neighbours differ
		return refs
	}
	seen := make(map[fleet.ObjectRef]bool, len(refs))
	kept := refs[:0]
	for _, ref := range refs {
		if !seen[ref] {
			seen[ref] = true
			kept = append(kept, ref)
		}
	}
	return kept
}
