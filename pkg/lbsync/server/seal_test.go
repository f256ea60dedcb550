package server_test

import (
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"crossway.dev/crossway/pkg/lbsync/server"
)

const versionKey, shares = "0123456789abcdef0123456789abcdef", "7;shares"

// sealedVersion is how a hub with this key sends version `shares` of a load assignment
// to an edge of this region.
func sealedVersion(t *testing.T, key, region, name string) string {
	t.Helper()
	h := newHub(t, server.Config{})
	h.SetVersionKey([]byte(key))
	identity := usEdge
	identity.Region, h.regions[pool] = region, region
	h.UpdateLoadAssignments(pool, list(name+"@"+shares), nil)
	h.SetResources(pool, snapshot(1, "Cluster "+name+"@1"))
	e := open(t, h.dial(h.certificate(identity)), "reader")
	e.asks(resourcev3.EndpointType, nil, name)
	return e.receives().Resources[0].Version
}

// Versions of load assignments say which shares are in force. A restarted hub learns
// them from its edges, but only those that a hub with the same key made, for this
// region and this assignment: an edge cannot invent any.
func TestForgedVersionsAreIgnored(t *testing.T) {
	genuine := sealedVersion(t, versionKey, "us", "a")
	for what, version := range map[string]string{
		"the hub's own":             genuine,
		"without a MAC":             shares,
		"changed":                   "8" + genuine[1:],
		"of another assignment":     sealedVersion(t, versionKey, "us", "b"),
		"of another region":         sealedVersion(t, versionKey, "eu", "a"),
		"of a hub with another key": sealedVersion(t, "x"+versionKey[1:], "us", "a"),
		"an empty MAC":              shares + "~",
		"a MAC and nothing else":    genuine[len(shares):],
		"another spelling of a MAC": genuine + "=",
	} {
		t.Run(what, func(t *testing.T) {
			h := newHub(t, server.Config{})
			h.SetVersionKey([]byte(versionKey))
			h.UpdateLoadAssignments(pool, list("a@"+shares), nil)
			h.SetResources(pool, snapshot(1, "Cluster a@1"))
			e := h.connect("envoy-0")
			e.asks(resourcev3.EndpointType, versions{"a": version}, "a")
			if what == "the hub's own" {
				h.waitFor("envoy-0 has ClusterLoadAssignment map[a:" + shares + "]")
				e.getsNothing()
				return
			}
			h.waitFor("envoy-0 has ClusterLoadAssignment map[]")
			if sent := e.receives().Resources[0].Version; sent != genuine {
				t.Errorf("it gets version %q, want %q", sent, genuine)
			}
		})
	}
}
