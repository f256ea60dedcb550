package reconciler

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"crossway.dev/crossway/api/v1alpha1"
)

func recordAbout(name, note string) *appsv1.ControllerRevision {
	r := &appsv1.ControllerRevision{}
	r.Namespace, r.Name, r.Labels = "crossway-system", name, RefusalSelector()
	r.Annotations = map[string]string{v1alpha1.LabelRefusedRoute: note}
	return r
}

// A record that the API server does not take, because the route is nearly as large as an object may be, keeps no others:
// or one such route and edits of another would fill the API server.
func TestRecordThatIsTooLarge(t *testing.T) {
	api := interceptor.NewClient(fake.NewClientBuilder().WithObjects(recordAbout("old", "a"), recordAbout("large-1", "large")).Build(), interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			if o.GetName() == "large-2" {
				return apierrors.NewRequestEntityTooLargeError("etcdserver: request is too large")
			}
			return c.Create(ctx, o, options...)
		}})
	w := NewRecords(api, "crossway-system")
	err := w.write(t.Context(), map[string]*appsv1.ControllerRevision{"new": recordAbout("new", "a"), "large-2": recordAbout("large-2", "large")})
	if err == nil {
		t.Error("a record that was not written is not tried again")
	}
	var stored appsv1.ControllerRevisionList
	if err := api.List(t.Context(), &stored); err != nil {
		t.Fatal(err)
	}
	names := ""
	for i := range stored.Items {
		names += stored.Items[i].Name + " "
	}
	if names != "large-1 new " {
		t.Errorf("records %s; the one of the large route stays until there is a newer one", names)
	}
}
