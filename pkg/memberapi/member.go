package memberapi

import (
	"reflect"
	"slices"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// Reader is what one member sees. A change of what it may import makes a new one,
// and ends the Watches of the old.
type Reader struct {
	Cluster fleet.ClusterName
	// User is who reads: the agent with the credential that the member is let in with.
	User string

	member *v1alpha1.MemberCluster
	// since is the version before which another Reader, or none, decided.
	since uint64
	// sees has each namespace of the Logs that the member may import.
	sees map[string]bool
}

// Sees says whether the member may import a namespace's services.
func (r *Reader) Sees(namespace string) bool { return r.sees[namespace] }

// MayImport says whether the member may import a namespace's services, if there are any.
func (r *Reader) MayImport(namespace string) bool {
	return registration.MayImport(r.member, namespace)
}

// source is an accepted member that may export.
type source struct {
	admission    registration.Admission
	region, zone string
	// endpoints are those of each service that count.
	endpoints map[fleet.ServiceName]registration.Endpoints
}

// sameSource says whether slices of a member are shown in the same way.
func sameSource(a, b *source) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.region == b.region && a.zone == b.zone && reflect.DeepEqual(a.admission, b.admission)
}

// setMembers replaces all MemberClusters.
func (s *State) setMembers(members []v1alpha1.MemberCluster, touched *Touched) {
	admissions := registration.Admissions(members, s.reserved)
	before, readers := s.sources, map[fleet.ClusterName]*Reader{}
	s.sources = map[fleet.ClusterName]*source{}
	for i := range members {
		m := &members[i]
		cluster := fleet.ClusterName(m.Name)
		if !registration.Accepted(m) {
			continue
		}
		now := &source{admission: admissions[cluster], region: m.Spec.Region, zone: m.Spec.Zone}
		if sameSource(before[cluster], now) {
			now = before[cluster]
		}
		s.sources[cluster] = now
		if registration.InForce(m) == nil {
			continue
		}
		if last := s.readers[cluster]; last != nil && sameReader(last.member, m) {
			readers[cluster] = last
			continue
		}
		readers[cluster] = s.newReader(m)
		touched.Readers = true
	}
	touched.Readers = touched.Readers || len(readers) != len(s.readers)
	s.readers = readers
	for cluster, keys := range s.byCluster {
		if before[cluster] != s.sources[cluster] {
			s.recount.Insert(cluster)
			s.lookAt(keys)
		}
	}
}

// count reads which endpoints of a member count, and which of its services that concerns.
func (s *State) count(cluster fleet.ClusterName) {
	source := s.sources[cluster]
	if source == nil {
		return
	}
	var announced []registration.Announced
	for key := range s.byCluster[cluster] {
		if a, ok := registration.ReadAnnounced(s.pushed[key].slice); ok {
			announced = append(announced, a)
		}
	}
	before := source.endpoints
	source.endpoints = source.admission.Endpoints(announced)
	for service, now := range source.endpoints {
		if now.Same(before[service]) {
			continue
		}
		for key := range s.byService[service] {
			if s.pushed[key].cluster == cluster {
				s.stale.Insert(key)
			}
		}
	}
}

func (s *State) newReader(m *v1alpha1.MemberCluster) *Reader {
	r := &Reader{Cluster: fleet.ClusterName(m.Name), User: userOf(m), member: m, since: s.versions.next(), sees: map[string]bool{}}
	for namespace := range s.namespaces {
		r.add(namespace)
	}
	return r
}

func (r *Reader) add(namespace string) {
	if registration.MayImport(r.member, namespace) {
		r.sees[namespace] = true
	}
}

// sameReader says whether two versions of a MemberCluster see the same.
func sameReader(a, b *v1alpha1.MemberCluster) bool {
	return a.UID == b.UID && userOf(a) == userOf(b) && a.Spec.Region == b.Spec.Region && slices.Equal(registration.ImportPatterns(a), registration.ImportPatterns(b))
}

func userOf(m *v1alpha1.MemberCluster) string {
	if c := registration.InForce(m); c != nil {
		return registration.CredentialUser(fleet.ClusterName(m.Name), c.Kind, c.ID)
	}
	return ""
}
