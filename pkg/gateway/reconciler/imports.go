package reconciler

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/serviceimport"
)

// Merges merges what members export, and remembers what is in force.
type Merges interface {
	// Do calls a function that reads exports and merges them, while nobody else does.
	Do(ctx context.Context, f func(merge func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) error) error
	// Confirms tells whether the record in the status of an export is that of the last merge.
	Confirms(*v1alpha1.MemberExport) bool
}

// imports merges what members export. Stored FleetServices do not decide: they are derived from the same exports for
// others to read, and whoever deletes one, their namespace or their CRD must take no route's backend away.
type imports struct {
	merges   Merges
	merged   map[fleet.ServiceName]mergedImport
	observer Imports // nil: none
}

// mergedImport is a merge and what it was made from.
type mergedImport struct {
	versions []exportVersion
	service  v1alpha1.FleetService
}

// exportVersion is one state of an export that counts, with its status.
type exportVersion struct {
	cluster    fleet.ClusterName
	uid        types.UID
	version    string
	acceptedAt time.Time
}

// list sets the imports of the Input. While they are the same, so is the slice.
func (x *imports) list(ctx context.Context, reader client.Reader, in *gateway.Input) error {
	return x.merges.Do(ctx, func(merge func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) error {
		return x.listAndMerge(ctx, reader, in, merge)
	})
}

func (x *imports) listAndMerge(ctx context.Context, reader client.Reader, in *gateway.Input, merge func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) error {
	var members v1alpha1.MemberClusterList
	var exports v1alpha1.MemberExportList
	var namespaces corev1.NamespaceList
	for _, list := range []client.ObjectList{&members, &exports, &namespaces} {
		if err := reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
	}
	byService := exportsByService(members.Items, namespaces.Items, exports.Items)
	next := make(map[fleet.ServiceName]mergedImport, len(byService))
	changed := map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{}
	for service := range x.merged {
		if byService[service] == nil {
			merge(service, nil)
			changed[service] = nil
		}
	}
	for service, exports := range byService {
		last, known := x.merged[service]
		now := mergedOf(exports, last, merge)
		next[service] = now
		if !known || !equality.Semantic.DeepEqual(last.service.Spec, now.service.Spec) {
			changed[service] = &now.service.Spec
		}
	}
	if x.observer != nil && (len(changed) > 0 || x.merged == nil) {
		x.observer.Merged(changed)
	}
	x.merged = next
	if len(changed) > 0 {
		in.Imports = make([]v1alpha1.FleetService, 0, len(next))
		for _, service := range slices.SortedFunc(maps.Keys(next), fleet.ServiceName.Compare) {
			in.Imports = append(in.Imports, next[service].service)
		}
	}
	return nil
}

// countedExport is an export that counts.
type countedExport struct {
	exportVersion
	object *v1alpha1.MemberExport
}

// exportsByService are the exports that count, sorted by member: of accepted members, and of namespaces that they may
// export. The namespace on the hub alone says whose an export is.
func exportsByService(members []v1alpha1.MemberCluster, namespaces []corev1.Namespace, exports []v1alpha1.MemberExport) map[fleet.ServiceName][]countedExport {
	owners := registration.Owners(members, namespaces)
	byService := map[fleet.ServiceName][]countedExport{}
	for i := range exports {
		e := &exports[i]
		m := owners[e.Namespace]
		if !registration.ExportCounts(m, e) {
			continue
		}
		service := fleet.ServiceName(e.Spec.Service)
		byService[service] = append(byService[service], countedExport{exportVersion{fleet.ClusterName(m.Name), e.UID, e.ResourceVersion, registration.AcceptedAt(m)}, e})
	}
	for _, exports := range byService {
		slices.SortFunc(exports, func(a, b countedExport) int { return cmp.Compare(a.cluster, b.cluster) })
	}
	return byService
}

// mergedOf merges the exports of one service, unless the last merge was of the same.
func mergedOf(exports []countedExport, last mergedImport, merge func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged) mergedImport {
	if slices.EqualFunc(exports, last.versions, func(e countedExport, v exportVersion) bool { return e.exportVersion == v }) {
		return last
	}
	versions := make([]exportVersion, len(exports))
	merging := make([]serviceimport.Export, len(exports))
	for i, e := range exports {
		versions[i] = e.exportVersion
		merging[i] = serviceimport.ExportOf(e.object, e.cluster, e.acceptedAt)
	}
	spec := merge(fleet.ServiceName(exports[0].object.Spec.Service), merging).Import
	return mergedImport{versions, v1alpha1.FleetService{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.FleetNamespace, Name: spec.Service.ObjectName()}, Spec: *spec,
	}}
}

// exportChanged ignores the records that this replica wrote itself, or would have written.
func (x *imports) exportChanged(before, after client.Object) bool {
	old, next := before.(*v1alpha1.MemberExport), after.(*v1alpha1.MemberExport)
	return specChanged(before, after) || !equality.Semantic.DeepEqual(old.Status.Seen, next.Status.Seen) && !x.merges.Confirms(next)
}

// acceptanceChanged ignores all but what a merge depends on: most updates of a MemberCluster are numbers and times.
func acceptanceChanged(before, after client.Object) bool {
	old, next := before.(*v1alpha1.MemberCluster), after.(*v1alpha1.MemberCluster)
	return registration.Accepted(old) != registration.Accepted(next) || !slices.Equal(old.Spec.Exports.Namespaces, next.Spec.Exports.Namespaces) ||
		!registration.AcceptedAt(old).Equal(registration.AcceptedAt(next))
}
