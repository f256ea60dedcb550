package reconciler

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/lbsync/rollout"
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

// A record has what the hub reads of a route: annotations may be far larger, and are in no budget.
func TestRecordsAreSmall(t *testing.T) {
	route := httpRoute("route", "/kept").DeepCopy()
	route.Generation, route.Annotations, route.Labels = 7, map[string]string{"note": strings.Repeat("<", 250_000)}, map[string]string{"team": "shop"}
	served := objectOfRoute(gateway.FromHTTPRoute(route))
	records, err := recordsOf("crossway-system", []rollout.Refusal{{Ref: routeRef("route"), Instead: &served}})
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		if size := len(record.Data.Raw); size > 2000 {
			t.Errorf("a record of a small route has %d bytes", size)
		}
		f, err := refusalFrom(record.Data.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if f.Instead.Generation != 7 || !strings.Contains(string(record.Data.Raw), `"/kept"`) {
			t.Errorf("the record lacks the route: %s", record.Data.Raw)
		}
	}
	if len(route.Annotations) != 1 {
		t.Error("the route itself has changed")
	}
}
