package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/serviceimport"
)

// mergeFunc merges the exports of one service.
type mergeFunc = func(fleet.ServiceName, []serviceimport.Export) serviceimport.Merged

// Merges merges what members export, and remembers what is in force.
type Merges interface {
	// Do calls a function that reads exports and merges them, while nobody else does.
	Do(ctx context.Context, f func(merge mergeFunc) error) error
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

// indexImport finds the MemberExports of a service.
const indexImport = "crossway.dev/import-of"

// index adds what update needs to a cache.
func (*imports) index(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &v1alpha1.MemberExport{}, indexImport, func(o client.Object) []string {
		service, _ := serviceOf(o)
		return []string{service.String()}
	})
	if err != nil {
		return fmt.Errorf("index MemberExports by service: %w", err)
	}
	return nil
}

// serviceOf is the service of a MemberExport, also of one that an informer says is gone.
func serviceOf(o any) (service fleet.ServiceName, ok bool) {
	if last, gone := o.(toolscache.DeletedFinalStateUnknown); gone {
		o = last.Obj
	}
	if e, isExport := o.(*v1alpha1.MemberExport); isExport {
		return fleet.ServiceName(e.Spec.Service), true
	}
	return fleet.ServiceName{}, false
}

// list merges all exports, and sets the imports of the Input if that changes any: while they are the same, so is the slice.
func (x *imports) list(ctx context.Context, reader client.Reader, in *gateway.Input) error {
	return x.merges.Do(ctx, func(merge mergeFunc) error {
		owners, err := ownersOf(ctx, reader)
		if err != nil {
			return err
		}
		var exports v1alpha1.MemberExportList
		if err := reader.List(ctx, &exports, client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
		byService := exportsByService(owners, exports.Items)
		for service := range x.merged {
			if byService[service] == nil {
				byService[service] = []countedExport{}
			}
		}
		x.merge(in, byService, merge)
		return nil
	})
}

// update merges the exports of some services again, after a list. It says whether that changes an import.
func (x *imports) update(ctx context.Context, reader client.Reader, in *gateway.Input, services sets.Set[fleet.ServiceName]) (changed bool, err error) {
	return changed, x.merges.Do(ctx, func(merge mergeFunc) error {
		owners, err := ownersOf(ctx, reader)
		if err != nil {
			return err
		}
		all := map[fleet.ServiceName][]countedExport{}
		for service := range services {
			var exports v1alpha1.MemberExportList
			if err := reader.List(ctx, &exports, client.MatchingFields{indexImport: service.String()}, client.UnsafeDisableDeepCopy); err != nil {
				return err
			}
			all[service] = exportsByService(owners, exports.Items)[service]
		}
		changed = x.merge(in, all, merge)
		return nil
	})
}

// merge merges the exports of services, which may have none any more, and hands on what that changes.
func (x *imports) merge(in *gateway.Input, byService map[fleet.ServiceName][]countedExport, merge mergeFunc) bool {
	first := x.merged == nil
	if first {
		x.merged = make(map[fleet.ServiceName]mergedImport, len(byService))
	}
	changed := map[fleet.ServiceName]*v1alpha1.FleetServiceSpec{}
	for service, exports := range byService {
		last, known := x.merged[service]
		if len(exports) == 0 {
			if known {
				merge(service, nil)
				delete(x.merged, service)
				changed[service] = nil
			}
			continue
		}
		now := mergedOf(exports, last, merge)
		x.merged[service] = now
		if !known || !equality.Semantic.DeepEqual(last.service.Spec, now.service.Spec) {
			changed[service] = &now.service.Spec
		}
	}
	if x.observer != nil && (len(changed) > 0 || first) {
		x.observer.Merged(changed)
	}
	if len(changed) > 0 {
		in.Imports = make([]v1alpha1.FleetService, 0, len(x.merged))
		for _, service := range slices.SortedFunc(maps.Keys(x.merged), fleet.ServiceName.Compare) {
			in.Imports = append(in.Imports, x.merged[service].service)
		}
	}
	return len(changed) > 0
}

// ownersOf are the members by their namespaces.
func ownersOf(ctx context.Context, reader client.Reader) (map[string]*v1alpha1.MemberCluster, error) {
	var members v1alpha1.MemberClusterList
	var namespaces corev1.NamespaceList
	for _, list := range []client.ObjectList{&members, &namespaces} {
		if err := reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, err
		}
	}
	return registration.Owners(members.Items, namespaces.Items), nil
}

// countedExport is an export that counts.
type countedExport struct {
	exportVersion
	object *v1alpha1.MemberExport
}

// exportsByService are the exports that count, sorted by member: of accepted members, and of namespaces that they may
// export. The namespace on the hub alone says whose an export is.
func exportsByService(owners map[string]*v1alpha1.MemberCluster, exports []v1alpha1.MemberExport) map[fleet.ServiceName][]countedExport {
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
func mergedOf(exports []countedExport, last mergedImport, merge mergeFunc) mergedImport {
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
