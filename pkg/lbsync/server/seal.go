package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// seal makes versions of load assignments that only the hub can make. Such a version
// says which shares are in force, and a hub that has just started believes it. On the
// wire it ends in a MAC of the region, the name and the version. So an edge can repeat
// what the hub once made for its region, and invent nothing. Without a key, in tests,
// versions are as they are.
type seal struct{ key []byte }

// sealMark is between a version and its MAC. Neither of them has one.
const sealMark = "~"

// SetVersionKey sets the key with which versions of load assignments are sealed. All
// replicas, and the hub after a restart, need the same. Call it before Register.
func (s *Server) SetVersionKey(key []byte) { s.seal = seal{key} }

func (s seal) mac(region, name, version string) string {
	h := hmac.New(sha256.New, s.key)
	for _, part := range []string{region, name, version} {
		_, _ = h.Write([]byte(part + "\x00"))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// onWire is a response as an edge of a region gets it. Resources are shared by all
// streams and stay as they are.
func (s seal) onWire(region string, r *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryResponse {
	if s.key == nil || r.TypeUrl != resourcev3.EndpointType {
		return r
	}
	sealed := &discovery.DeltaDiscoveryResponse{SystemVersionInfo: r.SystemVersionInfo, TypeUrl: r.TypeUrl, Nonce: r.Nonce,
		RemovedResources: r.RemovedResources}
	for _, one := range r.Resources {
		sealed.Resources = append(sealed.Resources, &discovery.Resource{Name: one.Name, Resource: one.Resource,
			Version: one.Version + sealMark + s.mac(region, one.Name, one.Version)})
	}
	return sealed
}

// genuine are those of an edge's versions that the hub made for its region. An edge
// that says something else has no version that counts, and gets the resource again.
func (s seal) genuine(region, typeURL string, versions map[string]string) map[string]string {
	if s.key == nil || typeURL != resourcev3.EndpointType {
		return versions
	}
	genuine := make(map[string]string, len(versions))
	for name, sealed := range versions {
		at := strings.LastIndex(sealed, sealMark)
		if at >= 0 && hmac.Equal([]byte(sealed[at+1:]), []byte(s.mac(region, name, sealed[:at]))) {
			genuine[name] = sealed[:at]
		}
	}
	return genuine
}
