package memberapi

import (
	"slices"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// Reader is what one member sees. A change of what it may import makes a new one,
// and ends the Watches of the old.
type Reader struct {
	Cluster fleet.ClusterName

	member *v1alpha1.MemberCluster
	// since is the version before which another Reader, or none, decided.
	since uint64
	// sees has each namespace of the Logs that the member may import.
	sees map[string]bool
}

// Sees says whether the member may import a namespace's services.
func (r *Reader) Sees(namespace string) bool { return r.sees[namespace] }

// source is what the hub knows of one exporting member.
type source struct {
	admission    registration.Admission
	region, zone string
}

func (s source) equal(other source) bool {
	return s.region == other.region && s.zone == other.zone && s.admission.Cluster == other.admission.Cluster &&
		slices.Equal(s.admission.CIDRs, other.admission.CIDRs) && slices.Equal(s.admission.Reserved, other.admission.Reserved)
}

// setMembers replaces all MemberClusters.
func (s *State) setMembers(members []v1alpha1.MemberCluster, touched *Touched) {
	admissions := registration.Admissions(members, s.reserved)
	readers := map[fleet.ClusterName]*Reader{}
	sources := map[fleet.ClusterName]source{}
	for i := range members {
		m := &members[i]
		cluster := fleet.ClusterName(m.Name)
		if !registration.Accepted(m) {
			continue
		}
		sources[cluster] = source{admissions[cluster], m.Spec.Region, m.Spec.Zone}
		if last := s.readers[cluster]; last != nil && sameReader(last.member, m) {
			readers[cluster] = last
			continue
		}
		readers[cluster] = s.newReader(m)
		touched.Readers = true
	}
	touched.Readers = touched.Readers || len(readers) != len(s.readers)
	before := s.sources
	s.readers, s.sources = readers, sources
	for cluster, parts := range s.byCluster {
		if !before[cluster].equal(sources[cluster]) {
			for key := range parts {
				s.stale[key] = true
			}
		}
	}
}

func (s *State) newReader(m *v1alpha1.MemberCluster) *Reader {
	r := &Reader{Cluster: fleet.ClusterName(m.Name), member: m, since: s.versions.next(), sees: map[string]bool{}}
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
	return a.UID == b.UID && a.Spec.Region == b.Spec.Region && slices.Equal(registration.ImportPatterns(a), registration.ImportPatterns(b))
}
