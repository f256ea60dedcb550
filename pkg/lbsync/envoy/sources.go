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

func gatewayRef(l lbsync.Listener) fleet.ObjectRef {
	return fleet.ObjectRef{Kind: GatewayKind, Name: l.Gateway}
}

// secretRef refers to the Secret of a model.Secret's name, "namespace/name".
func secretRef(name string) fleet.ObjectRef {
	namespace, name, _ := strings.Cut(name, "/")
	return fleet.ObjectRef{Kind: SecretKind, Name: fleet.ObjectName{Namespace: namespace, Name: name}}
}

// listenerSources are the Gateway, the Secrets and the TCP routes of a listener.
func listenerSources(l lbsync.Listener) []fleet.ObjectRef {
	sources := []fleet.ObjectRef{gatewayRef(l)}
	for _, c := range l.Chains {
		if c.TCP != nil {
			sources = append(sources, c.TCP.Origin.Route)
		}
		for _, name := range c.Secrets {
			sources = append(sources, secretRef(name))
		}
	}
	return unique(sources)
}

// routeSources are the Gateway and the routes of some hosts, in the order of their rules.
func routeSources(l lbsync.Listener, hosts []model.VirtualHost) []fleet.ObjectRef {
	sources := []fleet.ObjectRef{gatewayRef(l)}
	for _, h := range hosts {
		for i := range h.Rules {
			if route := h.Rules[i].Origin.Route; route != sources[len(sources)-1] { // rules of one route mostly follow each other
				sources = append(sources, route)
			}
		}
	}
	return unique(sources)
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
