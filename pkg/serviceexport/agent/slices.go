package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

// ReconcileSlice writes what the hub should have of one slice. The key is the slice's
// name there, or that of its first part, which follows from the name of its source in
// the member, so events of both clusters have the same key. A slice needs its owner: if
// the MemberExport is not on the hub yet, nothing is written, and its creation brings
// the key back.
func (e *Exporter) ReconcileSlice(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if err := e.beginWithdrawals(ctx); err != nil {
		return reconcile.Result{}, err
	}
	have, err := e.pushedParts(ctx, request.Name)
	if err != nil {
		return reconcile.Result{}, err
	}
	want, err := e.wanted(ctx, request.Name, have)
	if err != nil {
		return reconcile.Result{}, err
	}
	switch {
	case want.parts == nil:
		if kept, err := e.keepsAny(ctx, have); kept || err != nil {
			return reconcile.Result{RequeueAfter: keptInterval}, err
		}
	case want.owner == nil:
		return reconcile.Result{}, nil
	}
	err = e.writeParts(ctx, have, want.parts)
	e.refusals.note(request.Name, want, err)
	if err == nil || errors.Is(err, reconcile.TerminalError(nil)) {
		e.setDone(request.Name)
	}
	return reconcile.Result{}, err
}

// keepsAny tells whether slices stay although the member lacks their service.
func (e *Exporter) keepsAny(ctx context.Context, have []*discoveryv1.EndpointSlice) (bool, error) {
	for _, s := range have {
		if s != nil {
			return e.keeps(ctx, fleet.ServiceName{Namespace: s.Labels[v1alpha1.LabelServiceNamespace], Name: s.Labels[v1alpha1.LabelServiceName]})
		}
	}
	return false, nil
}

// pushedParts are the parts of a slice that the hub has, by number; nil: it has no such one.
func (e *Exporter) pushedParts(ctx context.Context, hubName string) (parts []*discoveryv1.EndpointSlice, err error) {
	for _, name := range serviceexport.PartNames(hubName) {
		part, err := apply.Found(ctx, e.hub, types.NamespacedName{Namespace: v1alpha1.MemberNamespace(e.cluster), Name: name}, &discoveryv1.EndpointSlice{})
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// wantedSlice is what the hub should have of one slice; the zero value: nothing.
type wantedSlice struct {
	source *discoveryv1.EndpointSlice // in the member
	parts  []discoveryv1.EndpointSlice
	owner  *v1alpha1.MemberExport // on the hub; nil: it is not there yet
}

// wanted returns what the hub should have of a slice, where it has the parts have now.
func (e *Exporter) wanted(ctx context.Context, hubName string, have []*discoveryv1.EndpointSlice) (wantedSlice, error) {
	source, err := e.source(ctx, hubName)
	if source == nil || err != nil {
		return wantedSlice{}, err
	}
	service, _ := serviceexport.ServiceOf(source)
	in := serviceexport.Source{Slice: *source, Pushed: have}
	if in.Service, err = e.offered(ctx, service); in.Service == nil || err != nil {
		return wantedSlice{}, err
	}
	if in.Zones, err = e.zonesOf(ctx, source); err != nil {
		return wantedSlice{}, err
	}
	want := wantedSlice{source: source, parts: serviceexport.Strip(e.cluster, in)}
	if want.parts == nil {
		return wantedSlice{}, nil
	}
	owner, err := apply.Found(ctx, e.hub, e.memberExportKey(service), &v1alpha1.MemberExport{})
	if owner == nil || err != nil || owner.DeletionTimestamp != nil {
		return want, err
	}
	want.owner = owner
	for i := range want.parts {
		want.parts[i].OwnerReferences = []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "MemberExport",
			Name: owner.Name, UID: owner.UID, Controller: ptr.To(true),
		}}
	}
	return want, nil
}

// writeParts writes the parts that differ and then deletes those that are no longer
// wanted: their endpoints may be in others by now.
func (e *Exporter) writeParts(ctx context.Context, have []*discoveryv1.EndpointSlice, want []discoveryv1.EndpointSlice) error {
	unwanted := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		if s != nil {
			unwanted[s.Name] = s
		}
	}
	for i := range want {
		if err := e.writeSlice(ctx, unwanted[want[i].Name], &want[i]); err != nil {
			return err
		}
		delete(unwanted, want[i].Name)
	}
	for _, name := range slices.Sorted(maps.Keys(unwanted)) {
		if err := apply.Remove(ctx, e.hub, unwanted[name]); err != nil {
			return err
		}
	}
	return nil
}

func (e *Exporter) writeSlice(ctx context.Context, have, want *discoveryv1.EndpointSlice) error {
	if have != nil && have.AddressType != want.AddressType { // cannot be changed, so the slice is replaced
		if err := apply.Remove(ctx, e.hub, have); err != nil {
			return err
		}
		have = nil
	}
	if have != nil && sameSlice(have, want) {
		return nil
	}
	err := apply.Object(ctx, e.hub, v1alpha1.AgentFieldManager, want)
	if apierrors.IsInvalid(err) { // trying again is useless before the slice changes
		return reconcile.TerminalError(err)
	}
	return err
}

// source returns the member's slice that has this name on the hub; nil: none.
func (e *Exporter) source(ctx context.Context, hubName string) (*discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	if err := e.member.List(ctx, &list, client.MatchingFields{indexHubName: hubName}); err != nil {
		return nil, fmt.Errorf("find the source of EndpointSlice %s: %w", hubName, err)
	}
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

// offered returns the Service if it is exported and can be; nil: not.
func (e *Exporter) offered(ctx context.Context, service fleet.ServiceName) (*corev1.Service, error) {
	key := types.NamespacedName(service)
	export, err := apply.Found(ctx, e.member, key, &mcsv1beta1.ServiceExport{})
	if export == nil || err != nil {
		return nil, err
	}
	found, err := apply.Found(ctx, e.member, key, &corev1.Service{})
	if err != nil || !serviceexport.Offered(export, found) {
		return nil, err
	}
	return found, nil
}

// zonesOf returns the zones of the nodes of those endpoints that have no zone of
// their own.
func (e *Exporter) zonesOf(ctx context.Context, slice *discoveryv1.EndpointSlice) (map[string]string, error) {
	zones := map[string]string{}
	for _, node := range zonelessNodes(slice) {
		if _, ok := zones[node]; ok {
			continue
		}
		meta := &metav1.PartialObjectMetadata{}
		meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
		meta, err := apply.Found(ctx, e.member, types.NamespacedName{Name: node}, meta)
		if err != nil {
			return nil, err
		}
		if meta != nil {
			zones[node] = meta.Labels[corev1.LabelTopologyZone]
		}
	}
	return zones, nil
}

// sameSlice tells whether the hub's slice needs no write. Labels that others
// added do not count.
func sameSlice(have, want *discoveryv1.EndpointSlice) bool {
	for k, v := range want.Labels {
		if have.Labels[k] != v {
			return false
		}
	}
	return apiequality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) &&
		apiequality.Semantic.DeepEqual(have.Ports, want.Ports) &&
		apiequality.Semantic.DeepEqual(have.OwnerReferences, want.OwnerReferences)
}
