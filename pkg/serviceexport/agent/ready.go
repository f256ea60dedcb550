package agent

import (
	"context"
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/apply"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/serviceexport"
)

// FirstPush returns nil once all exports that the member had at the start are on
// the hub, pushed by this agent or found there, or have a condition that says
// why not. From then on it always returns nil. The caches must be synced.
func (e *Exporter) FirstPush(ctx context.Context) error {
	if e.completed.Load() {
		return nil
	}
	var exports mcsv1beta1.ServiceExportList
	if err := e.member.List(ctx, &exports); err != nil {
		return fmt.Errorf("list ServiceExports: %w", err)
	}
	for _, x := range exports.Items {
		if err := e.pushed(ctx, client.ObjectKeyFromObject(&x)); err != nil {
			return err
		}
	}
	e.completed.Store(true)
	e.done.Clear()
	return nil
}

func (e *Exporter) pushed(ctx context.Context, key types.NamespacedName) error {
	memberExport, err := apply.Found(ctx, e.hub, e.memberExportKey(fleet.ServiceName(key)), &v1alpha1.MemberExport{})
	if err != nil {
		return err
	}
	if !e.isDone(exportKey(key)) {
		in, err := e.gather(ctx, key)
		if err != nil {
			return err
		}
		offer := serviceexport.Describe(in)
		if offer.Spec != nil && (memberExport == nil || !apiequality.Semantic.DeepEqual(memberExport.Spec, *offer.Spec)) {
			return fmt.Errorf("export %s is not on the hub yet", key)
		}
	}
	if memberExport == nil { // the hub refused it: its slices have no owner to wait for
		return nil
	}
	for _, r := range e.slicesOf(ctx, client.InNamespace(key.Namespace), client.MatchingFields{indexService: key.Name}) {
		if err := e.slicePushed(ctx, r.Name); err != nil {
			return err
		}
	}
	return nil
}

func (e *Exporter) slicePushed(ctx context.Context, hubName string) error {
	if e.isDone(hubName) {
		return nil
	}
	have, err := e.pushedParts(ctx, hubName)
	if err != nil {
		return err
	}
	want, err := e.wanted(ctx, hubName, have)
	if err != nil {
		return err
	}
	for i := range want.parts {
		part := &want.parts[i]
		if !slices.ContainsFunc(have, func(s *discoveryv1.EndpointSlice) bool { return s != nil && s.Name == part.Name && sameSlice(s, part) }) {
			return fmt.Errorf("EndpointSlice %s is not on the hub yet", part.Name)
		}
	}
	return nil
}

// exportKey is the key of an export in done. The key of a slice is its name.
func exportKey(key types.NamespacedName) string { return "export " + key.String() }

func (e *Exporter) setDone(key string) {
	if !e.completed.Load() {
		e.done.Store(key, nil)
	}
}

func (e *Exporter) isDone(key string) bool {
	_, done := e.done.Load(key)
	return done
}
