package agent

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
)

// RemoveImports deletes all that an Importer made in its cluster, which leaves the fleet.
// c has no cache, and no Importer works.
func RemoveImports(ctx context.Context, c client.Client) error {
	var imports mcsv1beta1.ServiceImportList
	if err := c.List(ctx, &imports, ours); err != nil {
		return fmt.Errorf("list ServiceImports: %w", err)
	}
	var objects []client.Object
	for i := range imports.Items {
		if imported(&imports.Items[i]) { // in the hub's own cluster the hub has imports of its own
			objects = append(objects, &imports.Items[i])
		}
	}
	var services corev1.ServiceList
	if err := c.List(ctx, &services, ours); err != nil {
		return fmt.Errorf("list derived Services: %w", err)
	}
	for i := range services.Items {
		objects = append(objects, &services.Items[i])
	}
	var slices discoveryv1.EndpointSliceList
	if err := c.List(ctx, &slices, client.MatchingLabels{discoveryv1.LabelManagedBy: v1alpha1.ManagedByImports}); err != nil {
		return fmt.Errorf("list imported EndpointSlices: %w", err)
	}
	for i := range slices.Items {
		objects = append(objects, &slices.Items[i])
	}
	for _, o := range objects {
		if err := c.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete %T %s: %w", o, client.ObjectKeyFromObject(o), err)
		}
	}
	return nil
}
