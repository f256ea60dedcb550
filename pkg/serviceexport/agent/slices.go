package agent

import (
	"context"
	"errors"
	"fmt"

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

// ReconcileSlice writes one slice to the hub. The key is the slice's name there,
// which follows from the name of its source in the member, so events of both
// clusters have the same key. A slice needs its owner: if the MemberExport is not
// on the hub yet, nothing is written, and its creation brings the key back.
func (e *Exporter) ReconcileSlice(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if err := e.beginWithdrawals(ctx); err != nil {
		return reconcile.Result{}, err
	}
	key := types.NamespacedName{Namespace: v1alpha1.MemberNamespace(e.cluster), Name: request.Name}
	have, err := apply.Found(ctx, e.hub, key, &discoveryv1.EndpointSlice{})
	if err != nil {
		return reconcile.Result{}, err
	}
	want, owner, err := e.wantedSlice(ctx, request.Name, have)
	if err != nil {
		return reconcile.Result{}, err
	}
	switch {
	case want == nil && have == nil:
	case want == nil:
		service := fleet.ServiceName{Namespace: have.Labels[v1alpha1.LabelServiceNamespace], Name: have.Labels[v1alpha1.LabelServiceName]}
		if kept, err := e.keeps(ctx, service); kept || err != nil {
			return reconcile.Result{RequeueAfter: keptInterval}, err
		}
		err = apply.Remove(ctx, e.hub, have)
	case owner == nil:
		return reconcile.Result{}, nil
	case have != nil && have.AddressType != want.AddressType: // cannot be changed, so the slice is replaced
		if err := apply.Remove(ctx, e.hub, have); err != nil {
			return reconcile.Result{}, err
		}
		err = e.applySlice(ctx, want)
	case have == nil || !sameSlice(have, want):
		err = e.applySlice(ctx, want)
	}
	if err == nil || errors.Is(err, reconcile.TerminalError(nil)) {
		e.setDone(request.Name)
	}
	return reconcile.Result{}, err
}

// wantedSlice returns the slice that the hub should have under a name, where it has
// the slice have now; nil: none. owner is its MemberExport on the hub; nil: it is
// not there yet.
func (e *Exporter) wantedSlice(ctx context.Context, hubName string, have *discoveryv1.EndpointSlice) (want *discoveryv1.EndpointSlice, owner *v1alpha1.MemberExport, err error) {
	source, err := e.source(ctx, hubName)
	if source == nil || err != nil {
		return nil, nil, err
	}
	service, _ := serviceexport.ServiceOf(source)
	in := serviceexport.Source{Slice: *source, Pushed: have}
	if in.Service, err = e.offered(ctx, service); in.Service == nil || err != nil {
		return nil, nil, err
	}
	if in.Zones, err = e.zonesOf(ctx, source); err != nil {
		return nil, nil, err
	}
	stripped, ok := serviceexport.Strip(e.cluster, in)
	if !ok {
		return nil, nil, nil
	}
	owner, err = apply.Found(ctx, e.hub, e.memberExportKey(service), &v1alpha1.MemberExport{})
	if err != nil {
		return nil, nil, err
	}
	if owner == nil || owner.DeletionTimestamp != nil {
		return &stripped, nil, nil
	}
	stripped.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "MemberExport",
		Name: owner.Name, UID: owner.UID, Controller: ptr.To(true),
	}}
	return &stripped, owner, nil
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

func (e *Exporter) applySlice(ctx context.Context, want *discoveryv1.EndpointSlice) error {
	err := apply.Object(ctx, e.hub, v1alpha1.AgentFieldManager, want)
	if apierrors.IsInvalid(err) { // trying again is useless before the slice changes
		return reconcile.TerminalError(err)
	}
	return err
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
