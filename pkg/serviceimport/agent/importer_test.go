package agent

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/pkg/serviceimport"
)

const webOfTwo = `import ClusterSetIP ips=1 clusters=[a b] slices=Present [Ready=True Ready]
service ClusterIP tcp-80
slice of a 10.1.0.1 tcp-80=8080 for kube-proxy
slice of b 10.2.0.1 10.2.0.2 tcp-80=8080 for kube-proxy
`

func (m *member) serveWeb() (*mcsv1beta1.ServiceImport, []client.Object) {
	i := m.serve("web")
	return i, []client.Object{m.serveSlice("web", "a", "us", "10.1.0.1"), m.serveSlice("web", "b", "eu", "10.2.0.1", "10.2.0.2")}
}

// An import comes, changes, and goes, with all that belongs to it. Nothing is
// written twice, also not by an agent that restarts.
func TestImport(t *testing.T) {
	m := newMember(t, "i-shop")
	served, objects := m.serveWeb()
	_, stop := m.start()
	m.want("web", webOfTwo)
	m.settle()
	if writes := m.taken(); len(writes) != 5 { // Service, import, two slices, status
		t.Errorf("%d writes: %q", len(writes), writes)
	}
	stop()
	_, stop = m.start()
	m.settle()
	if writes := m.taken(); len(writes) > 0 {
		t.Errorf("a restart writes %q", writes)
	}

	slice := objects[1]
	m.Must(m.served.Patch(t.Context(), slice, client.RawPatch(types.JSONPatchType, []byte(`[{"op":"remove","path":"/endpoints/0"}]`))))
	m.want("web", `import ClusterSetIP ips=1 clusters=[a b] slices=Present [Ready=True Ready]
service ClusterIP tcp-80
slice of a 10.1.0.1 tcp-80=8080 for kube-proxy
slice of b 10.2.0.2 tcp-80=8080 for kube-proxy
`)
	m.settle()
	if writes := m.taken(); len(writes) != 1 {
		t.Errorf("one change of a slice: %q", writes)
	}

	// a port gets another name, and the import another type
	served.Spec.Ports[0].Name = "web"
	m.Must(m.served.Update(t.Context(), served))
	m.settle()
	if writes := m.taken(); len(writes) != 2 { // the import, and its status' generation
		t.Errorf("a port got another name: %q", writes)
	}
	served.Spec.Type = mcsv1beta1.Headless
	m.Must(m.served.Update(t.Context(), served))
	m.want("web", `import Headless ips=0 clusters=[a b] slices=Present [Ready=True Ready]
slice of a 10.1.0.1 web=8080
slice of b 10.2.0.2 web=8080
`)
	served.Spec.Type = mcsv1beta1.ClusterSetIP
	m.Must(m.served.Update(t.Context(), served))
	m.Must(m.served.Delete(t.Context(), slice))
	m.want("web", `import ClusterSetIP ips=1 clusters=[a b] slices=Present [Ready=True Ready]
service ClusterIP tcp-80
slice of a 10.1.0.1 tcp-80=8080 for kube-proxy
`)

	m.Must(m.served.Delete(t.Context(), objects[0]))
	m.Must(m.served.Delete(t.Context(), served))
	m.want("web", "")
}

// What somebody deletes by hand comes back; the import has the new Service's IP.
func TestHandDeleted(t *testing.T) {
	m := newMember(t, "h-shop")
	m.serveWeb()
	m.start()
	m.want("web", webOfTwo)
	for _, o := range []client.Object{
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "h-shop", Name: serviceimport.DerivedName("web")}},
		&mcsv1beta1.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: "h-shop", Name: "web"}},
	} {
		m.Must(m.client.Delete(t.Context(), o))
		m.want("web", webOfTwo)
	}
}
