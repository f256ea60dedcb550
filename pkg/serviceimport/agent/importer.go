package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
	"crossway.dev/crossway/pkg/serviceimport"
)

// Importer writes the imports of one member from what the member API serves: the
// derived Service, the ServiceImport with its IPs, and the EndpointSlices.
type Importer struct {
	*writer
	cluster fleet.ClusterName
	hub     *MemberAPI
	silence *silence
	missing missingCount
	// lastZones are the zones of the nodes when one of them changed last. Any
	// goroutine may use it.
	lastZones atomic.Pointer[[]string]
}

// NewImporter makes an Importer of the member cluster.
func NewImporter(name fleet.ClusterName, member cluster.Cluster, hub *MemberAPI) (*Importer, error) {
	w, err := newWriter(member)
	return &Importer{writer: w, cluster: name, hub: hub, silence: newSilence()}, err
}

// facts are what the member and the hub know of one service.
type facts struct {
	have    *mcsv1beta1.ServiceImport // as stored in the member; nil: none
	derived *corev1.Service           // likewise
	stored  []discoveryv1.EndpointSlice
	// wanted is the import that the hub serves or, while it is silent about it, have.
	wanted *mcsv1beta1.ServiceImport
	served []discoveryv1.EndpointSlice // of wanted, as the hub serves them; empty while wanted is have
	kept   []discoveryv1.EndpointSlice // of stored, those of which the hub is silent: of no cluster that is in served
	ended  []string                    // what the hub reported as deleted until now
	again  time.Duration               // when to look again; 0: after an event
	// live tells whether the namespace is there and stays: its arrival brings the key back.
	live bool
}

// Reconcile writes all that belongs to one import except its status. The key is
// the name of the service.
func (i *Importer) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	f, err := i.gather(ctx, request.NamespacedName)
	if err != nil {
		return reconcile.Result{}, err
	}
	switch {
	case !f.live:
		i.silence.obeyed(request.NamespacedName, f.ended)
		i.silence.removed(request.NamespacedName)
		return reconcile.Result{}, nil
	case f.have != nil && !serviceimport.Ours(f.have):
		if f.wanted != nil {
			i.reportNotOurs(f.have)
		}
		f.have, f.wanted = nil, nil
	case f.have != nil && f.have.DeletionTimestamp != nil:
		return reconcile.Result{}, nil // its end brings this key back
	case f.wanted == nil && !i.hub.Synced():
		return reconcile.Result{}, nil // nobody knows what belongs here, or whether anything does
	case f.wanted == nil && !imported(f.have):
		f.have = nil // the hub's own cluster has imports that the hub writes
	}
	if f.wanted == nil {
		err = i.remove(ctx, f)
	} else {
		err = i.writeAll(ctx, f)
	}
	if err == nil {
		i.silence.obeyed(request.NamespacedName, f.ended)
	}
	if err == nil && f.wanted == nil {
		i.silence.removed(request.NamespacedName)
	}
	return reconcile.Result{RequeueAfter: f.again}, err
}

// imported tells whether an import came from a member API.
func imported(i *mcsv1beta1.ServiceImport) bool {
	return i != nil && serviceimport.Ours(i) && i.Annotations[v1alpha1.AnnotationRegion] != ""
}

// writeAll makes what belongs to an import as it is wanted.
func (i *Importer) writeAll(ctx context.Context, f facts) error {
	derived, refused, err := i.writeService(ctx, f)
	if err != nil {
		return err
	}
	stored, err := i.write(ctx, f.have, serviceimport.MemberImport(f.wanted, derived).Import)
	if err != nil {
		return err
	}
	if err := i.writeSlices(ctx, f, stored.UID); err != nil {
		return err
	}
	return refused
}

// ReconcileStatus writes the status of one import that Crossway made.
func (i *Importer) ReconcileStatus(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	f, err := i.gather(ctx, request.NamespacedName)
	if err != nil || !f.live || f.wanted == nil || f.have == nil || !serviceimport.Ours(f.have) {
		return reconcile.Result{}, err
	}
	wanted, err := i.wantedSlices(ctx, f)
	if err != nil || len(wanted) > 0 && len(f.stored) == 0 {
		return reconcile.Result{}, err // the first slice brings this key back
	}
	want := serviceimport.MemberImport(f.wanted, f.derived)
	if len(f.stored) > 0 {
		want.Import.Status.EndpointSliceObjects = mcsv1beta1.EndpointSliceObjectsPresent
	}
	return i.writeStatus(ctx, f.have, want)
}

func (i *Importer) gather(ctx context.Context, key types.NamespacedName) (facts, error) {
	var f facts
	namespace, err := apply.Found(ctx, i.local, types.NamespacedName{Name: key.Namespace}, &corev1.Namespace{})
	if err != nil {
		return f, err
	}
	f.live = namespace != nil && namespace.DeletionTimestamp == nil
	if f.have, err = apply.Found(ctx, i.local, key, &mcsv1beta1.ServiceImport{}); err != nil {
		return f, err
	}
	derivedKey := types.NamespacedName{Namespace: key.Namespace, Name: serviceimport.DerivedName(key.Name)}
	if f.derived, err = apply.Found(ctx, i.local, derivedKey, &corev1.Service{}); err != nil {
		return f, err
	}
	if f.derived != nil && f.derived.DeletionTimestamp != nil {
		f.derived = nil
	}
	if f.stored, err = i.slices(ctx, client.InNamespace(key.Namespace), client.MatchingFields{indexImported: key.Name}); err != nil {
		return f, err
	}
	i.compare(ctx, key, &f)
	return f, nil
}

// writeService makes the derived Service as the import needs it, and returns it as
// it is stored; nil: there is none. refused is the API server's answer to a Service
// that it does not take: trying again is useless, and the import stays without IPs.
func (i *Importer) writeService(ctx context.Context, f facts) (stored *corev1.Service, refused, err error) {
	want := serviceimport.DerivedService(f.wanted)
	switch {
	case f.derived != nil && !serviceimport.OurService(f.derived):
		return f.derived, nil, nil // its name is taken
	case want == nil && f.derived != nil:
		return nil, nil, apply.Remove(ctx, i.local, f.derived)
	case want == nil, f.derived != nil && serviceimport.SameService(f.derived, want):
		return f.derived, nil, nil
	}
	err = apply.Object(ctx, i.local, fieldManager, want)
	if apierrors.IsInvalid(err) {
		return f.derived, reconcile.TerminalError(err), nil
	}
	if err != nil {
		return nil, nil, err
	}
	i.statusGate.CountWrite(i.now())
	return want, nil, nil
}

// writeSlices writes the slices that differ, and deletes those that are no longer wanted.
func (i *Importer) writeSlices(ctx context.Context, f facts, owner types.UID) error {
	wanted, err := i.wantedSlices(ctx, f)
	if err != nil {
		return err
	}
	unwanted := map[string]*discoveryv1.EndpointSlice{}
	for j := range f.stored {
		unwanted[f.stored[j].Name] = &f.stored[j]
	}
	var failed []error
	for j := range wanted {
		want := &wanted[j]
		want.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: mcsv1beta1.GroupVersion.String(), Kind: mcsv1beta1.ServiceImportKindName, Name: f.wanted.Name, UID: owner,
		}}
		failed = append(failed, i.writeSlice(ctx, unwanted[want.Name], want))
		delete(unwanted, want.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(unwanted)) {
		failed = append(failed, apply.Remove(ctx, i.local, unwanted[name]))
	}
	return errors.Join(failed...)
}

func (i *Importer) writeSlice(ctx context.Context, have, want *discoveryv1.EndpointSlice) error {
	if have == nil {
		other, err := apply.Found(ctx, i.local, client.ObjectKeyFromObject(want), &discoveryv1.EndpointSlice{})
		switch {
		case err != nil:
			return err
		case other != nil && serviceimport.OurSlice(other):
			have = other // new since the list
		case other != nil:
			log.FromContext(ctx).Info("an EndpointSlice that Crossway did not make has the name of an imported one and stays; delete it", "slice", want.Name)
			return nil
		}
	}
	switch {
	case have != nil && have.AddressType != want.AddressType: // cannot be changed, so the slice is replaced
		if err := apply.Remove(ctx, i.local, have); err != nil {
			return err
		}
	case have != nil && serviceimport.SameSlice(have, want):
		return nil
	}
	if err := apply.Object(ctx, i.local, fieldManager, want); err != nil {
		return err
	}
	i.statusGate.CountWrite(i.now())
	return nil
}

// wantedSlices reads the member's own part of the import and returns all its slices.
func (i *Importer) wantedSlices(ctx context.Context, f facts) ([]discoveryv1.EndpointSlice, error) {
	key := client.ObjectKeyFromObject(f.wanted)
	e := serviceimport.Endpoints{Cluster: i.cluster, Import: f.wanted, Served: f.served, Stored: f.stored, Kept: f.kept}
	export, err := apply.Found(ctx, i.local, key, &mcsv1beta1.ServiceExport{})
	if err != nil {
		return nil, err
	}
	service, err := apply.Found(ctx, i.local, key, &corev1.Service{})
	if err != nil {
		return nil, err
	}
	if serviceexport.Offered(export, service) {
		e.Service = service
		if e.ServiceSlices, err = i.slices(ctx, client.InNamespace(key.Namespace), client.MatchingFields{indexExported: key.Name}); err != nil {
			return nil, err
		}
	}
	if e.Zones, err = i.zones(ctx); err != nil {
		return nil, err
	}
	return e.ImportedSlices(), nil
}

// slices lists slices of the member that are not being deleted.
func (i *Importer) slices(ctx context.Context, which ...client.ListOption) ([]discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	if err := i.local.List(ctx, &list, which...); err != nil {
		return nil, fmt.Errorf("list EndpointSlices: %w", err)
	}
	return slices.DeleteFunc(list.Items, func(s discoveryv1.EndpointSlice) bool { return s.DeletionTimestamp != nil }), nil
}

// zones are the zones of the member's nodes, sorted; "" if a node has none.
func (i *Importer) zones(ctx context.Context) ([]string, error) {
	var nodes metav1.PartialObjectMetadataList
	nodes.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := i.local.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list Nodes: %w", err)
	}
	zones := map[string]bool{}
	for j := range nodes.Items {
		zones[nodes.Items[j].Labels[corev1.LabelTopologyZone]] = true
	}
	return slices.Sorted(maps.Keys(zones)), nil
}

// remove deletes all that Crossway made of an import: first its name, then its IP,
// then its endpoints.
func (i *Importer) remove(ctx context.Context, f facts) error {
	var failed []error
	if f.have != nil {
		failed = append(failed, apply.Remove(ctx, i.local, f.have))
	}
	if f.derived != nil && serviceimport.OurService(f.derived) {
		failed = append(failed, apply.Remove(ctx, i.local, f.derived))
	}
	for j := range f.stored {
		failed = append(failed, apply.Remove(ctx, i.local, &f.stored[j]))
	}
	return errors.Join(failed...)
}
