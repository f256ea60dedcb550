package agent

import (
	"context"
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// Withdraw deletes all that a member has on the hub: its cluster leaves the fleet. hub has
// no cache, and no Exporter works.
func Withdraw(ctx context.Context, hub client.Client, member fleet.ClusterName) error {
	in := client.InNamespace(v1alpha1.MemberNamespace(member))
	var exports v1alpha1.MemberExportList
	if err := hub.List(ctx, &exports, in); err != nil {
		return fmt.Errorf("list MemberExports: %w", err)
	}
	var objects []client.Object
	for i := range exports.Items {
		objects = append(objects, &exports.Items[i])
	}
	var slices discoveryv1.EndpointSliceList
	if err := hub.List(ctx, &slices, in); err != nil {
		return fmt.Errorf("list EndpointSlices: %w", err)
	}
	for i := range slices.Items {
		objects = append(objects, &slices.Items[i])
	}
	for _, o := range objects {
		if err := hub.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete %T %s: %w", o, client.ObjectKeyFromObject(o), err)
		}
	}
	return nil
}
