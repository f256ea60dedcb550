package envoy_test

import (
	"slices"
	"strings"
	"testing"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
	"crossway.dev/crossway/pkg/lbsync"
	"crossway.dev/crossway/pkg/lbsync/envoy"
)

// sourcesOf gives the sources of each resource, like "Cluster shop/a/1: HTTPRoute shop/a".
func sourcesOf(r envoy.Resources) (lines []string) {
	for _, list := range [][]envoy.Resource{r.Listeners, r.Routes, r.Clusters, r.Secrets} {
		for _, resource := range list {
			line := resource.TypeURL[strings.LastIndexByte(resource.TypeURL, '.')+1:] + " " + resource.Name + ":"
			for _, ref := range resource.Sources {
				line += " " + ref.String()
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// Every resource names the objects that it was made of, each once.
func TestSources(t *testing.T) {
	rule := func(name string, generation int64) model.Rule {
		return model.Rule{Origin: model.Origin{Route: routeNamed(name), Generation: generation}, Match: prefix("/"), Forward: to("shop/" + name + "/1")}
	}
	l := httpListener(443, model.VirtualHost{Hostname: "a.example", Rules: []model.Rule{rule("a", 1), rule("a", 1), rule("both", 2), rule("a", 1)}},
		model.VirtualHost{Hostname: "b.example", Rules: []model.Rule{rule("b", 1), rule("both", 2)}})
	l.Protocol, l.Chains[0].Secrets, l.Chains[0].Misdirected = model.HTTPS, []string{"infra/cert"}, []string{"c.example"}
	program := lbsync.Program{Listeners: []lbsync.Listener{l},
		Secrets:     []lbsync.Secret{{Name: "infra/shared/443/http/0", Gateway: l.Gateway, Secret: model.Secret{Name: "infra/cert", Certificate: []byte("c"), PrivateKey: []byte("k")}}},
		Assignments: []model.Assignment{{Key: "shop/a/1", Route: routeNamed("a")}}}
	name := envoy.ListenerName(&l.Listener)
	chain, gateway := name+"/"+l.Chains[0].Name, "Gateway "+l.Gateway.String()
	want := []string{
		"Listener " + name + ": " + gateway,
		"RouteConfiguration " + chain + ": " + gateway + " HTTPRoute shop/a HTTPRoute shop/both HTTPRoute shop/b",
		"Cluster shop/a/1: HTTPRoute shop/a",
		"Secret infra/shared/443/http/0: " + gateway + " Secret infra/cert",
	}
	if got := sourcesOf(envoy.Translate(program)); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func routeNamed(name string) fleet.RouteRef {
	return fleet.RouteRef{Kind: "HTTPRoute", Name: fleet.ObjectName{Namespace: "shop", Name: name}}
}
