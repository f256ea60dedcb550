package agent

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
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
	m.start()
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

// What somebody deletes or changes by hand comes back; the import has the new Service's IP.
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
	derived := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "h-shop", Name: serviceimport.DerivedName("web")}}
	slice := func() client.Object {
		var list discoveryv1.EndpointSliceList
		m.Must(m.client.List(t.Context(), &list, client.InNamespace("h-shop"), client.MatchingLabels{mcsv1beta1.LabelSourceCluster: "b"}))
		return &list.Items[0]
	}
	for _, change := range []struct {
		object client.Object
		patch  string
	}{
		{derived, `[{"op":"replace","path":"/spec/ports/0/name","value":"other"}]`},
		{slice(), `[{"op":"remove","path":"/endpoints/0"}]`},
		{slice(), `[{"op":"replace","path":"/ports/0/port","value":1}]`},
		{slice(), `[{"op":"remove","path":"/metadata/labels/kubernetes.io~1service-name"}]`},
		{slice(), `[{"op":"remove","path":"/metadata/ownerReferences"}]`},
	} {
		m.Must(m.client.Patch(t.Context(), change.object, client.RawPatch(types.JSONPatchType, []byte(change.patch))))
		m.want("web", webOfTwo)
	}
	m.Must(m.client.Delete(t.Context(), slice()))
	m.want("web", webOfTwo)
	// Without its label it counts as somebody else's, which the import says; the import has its IP again with it.
	m.Must(m.client.Patch(t.Context(), derived, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+serviceimport.LabelManagedBy+`":"me"}}}`))))
	m.want("web", strings.Replace(webOfTwo, "ips=1 clusters=[a b] slices=Present [Ready=True Ready]", "ips=0 clusters=[a b] slices=Present [Ready=False Pending]", 1))
	m.Must(m.client.Delete(t.Context(), derived))
	m.want("web", webOfTwo)
}

// Each write fails once, at the beginning and at the end of an import. The agent
// goes on, and so does the next one, where the first stops for good.
func TestHalfWay(t *testing.T) {
	m := newMember(t, "half-shop")
	for n := 1; n <= 5; n++ {
		served, slices := m.serveWeb()
		m.fromWrite(n)
		_, stop := m.start()
		m.settle()
		stop()
		m.fromWrite(0)
		_, stop = m.start()
		m.want("web", webOfTwo)
		m.settle()
		stop()

		m.fromWrite(n)
		_, stop = m.start()
		for _, o := range append(slices, served) {
			m.Must(m.served.Delete(t.Context(), o))
		}
		m.settle()
		stop()
		// the next agent finds what is left: nobody reports the deletions to it
		m.fromWrite(0)
		m.missingTime = 0
		_, stop = m.start()
		m.want("web", "")
		stop()
		m.missingTime = missingTime
	}
}

// fromWrite refuses all writes from the n-th on; 0: none.
func (m *member) fromWrite(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes, m.refuse = nil, func(written int) bool { return n > 0 && written >= n }
}

// While the hub does not answer, answers something else, or has lost its memory,
// imports stay as they are, and agents that start meanwhile write nothing. The
// cluster's own endpoints follow its own slices nevertheless.
func TestSilentHub(t *testing.T) {
	m := newMember(t, "silent-shop")
	m.serve("web", func(i *mcsv1beta1.ServiceImport) {
		i.Status.Clusters = []mcsv1beta1.ClusterStatus{{Cluster: "a"}, {Cluster: "here"}}
	})
	m.serveSlice("web", "a", "us", "10.1.0.1")
	own := m.export("web", "10.4.0.1")
	_, stop := m.start()
	web := func(address string) string {
		return `import ClusterSetIP ips=1 clusters=[a here] slices=Present [Ready=True Ready]
service ClusterIP tcp-80
slice of a 10.1.0.1 tcp-80=8080 for kube-proxy
slice of here ` + address + ` tcp-80=8080 for kube-proxy
`
	}
	m.want("web", web("10.4.0.1"))
	m.settle()
	m.taken()
	for i, answer := range []http.HandlerFunc{nothing, status(http.StatusForbidden), status(http.StatusUnauthorized),
		status(http.StatusServiceUnavailable), status(http.StatusNotFound), status(http.StatusGone)} {
		m.api.answers(answer)
		m.settle()
		stop()
		if i > 0 { // what is not listed at all is not missing either
			m.missingTime = 0
		}
		_, stop = m.start()
		m.settle()
		if writes := m.taken(); len(writes) > 0 {
			t.Errorf("answer %d: writes %q", i, writes)
		}
		address := fmt.Sprintf("10.4.0.%d", i+2)
		own.Endpoints[0].Addresses[0] = address
		m.Must(m.client.Update(t.Context(), own))
		m.want("web", web(address))
		if writes := m.taken(); len(writes) != 1 {
			t.Errorf("answer %d: own endpoints change: %q", i, writes)
		}
	}
	m.api.answers(nil)
	m.Must(m.served.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{}, client.InNamespace(m.namespace)))
	m.Must(m.served.DeleteAllOf(t.Context(), &mcsv1beta1.ServiceImport{}, client.InNamespace(m.namespace)))
	stop()
	m.missingTime = 0
	m.start()
	m.want("web", "")
}

// While an agent that starts has read the hub's slices and not yet its imports, imports stay as they are: what is stored is
// never written again over what the hub has now.
func TestSlicesAreReadBeforeImports(t *testing.T) {
	m := newMember(t, "half-shop")
	m.serve("web")
	served := m.serveSlice("web", "a", "us", "10.1.0.1")
	_, stop := m.start()
	web := func(address string) string {
		return `import ClusterSetIP ips=1 clusters=[a b] slices=Present [Ready=True Ready]
service ClusterIP tcp-80
slice of a ` + address + ` tcp-80=8080 for kube-proxy
`
	}
	m.want("web", web("10.1.0.1"))
	m.settle()
	stop()
	served.Endpoints[0].Addresses[0] = "10.1.0.2"
	m.Must(m.served.Update(t.Context(), served))
	m.taken()
	m.api.answers(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "serviceimports") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		m.api.proxy.ServeHTTP(w, r)
	})
	importer, _ := m.start()
	key := types.NamespacedName{Namespace: m.namespace, Name: "web"}
	m.Eventually("the hub's slices", func() bool { return len(importer.hub.slicesOf(key)) == 1 })
	for range 3 { // the first write would bring the next
		_, err := importer.Reconcile(t.Context(), reconcile.Request{NamespacedName: key})
		m.Must(err)
		m.settle()
	}
	if writes := m.taken(); len(writes) > 0 {
		t.Errorf("writes before the imports were read: %q; the member has\n%s", writes, m.describe("web"))
	}
	m.api.answers(nil)
	m.want("web", web("10.1.0.2"))
}

// Many imports that are missing at once stay, until somebody deletes them.
func TestMostAreMissing(t *testing.T) {
	m := newMember(t, "most-shop")
	for i := range manyImports {
		m.serve(fmt.Sprint("web-", i))
	}
	_, stop := m.start()
	m.want("web-4", "import ClusterSetIP ips=1 clusters=[a b] slices=Absent [Ready=True Ready]\nservice ClusterIP tcp-80\n")
	m.settle()
	stop()
	m.Must(m.served.DeleteAllOf(t.Context(), &mcsv1beta1.ServiceImport{}, client.InNamespace(m.namespace)))
	m.taken()
	m.missingTime = time.Second
	importer, _ := m.start()
	m.Eventually("an event of each", func() bool { return len(importer.events.(*events.FakeRecorder).Events) == manyImports })
	m.settle()
	if writes := m.taken(); len(writes) > 0 {
		t.Errorf("writes %q", writes)
	}
	m.Must(m.client.DeleteAllOf(t.Context(), &mcsv1beta1.ServiceImport{}, client.InNamespace(m.namespace)))
	for i := range manyImports {
		m.want(fmt.Sprint("web-", i), "")
	}
	m.Eventually("nothing to be remembered of them", func() bool {
		importer.silence.mu.Lock()
		defer importer.silence.mu.Unlock()
		return len(importer.silence.services) == 0
	})
}

// Objects of others under the names of Crossway's stay as they are.
func TestOthersObjects(t *testing.T) {
	m := newMember(t, "others-shop")
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: serviceimport.DerivedName("web")},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "theirs", Port: 99}}},
	}
	m.Must(m.client.Create(t.Context(), service))
	served, slices := m.serveWeb()
	importer, _ := m.start()
	m.want("web", `import ClusterSetIP ips=0 clusters=[a b] slices=Present [Ready=False Pending]
service ClusterIP theirs
slice of a 10.1.0.1 tcp-80=8080 for kube-proxy
slice of b 10.2.0.1 10.2.0.2 tcp-80=8080 for kube-proxy
`)
	m.Must(m.client.Delete(t.Context(), service))
	m.want("web", webOfTwo)

	theirs := &mcsv1beta1.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: "api"}, Spec: mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.Headless, Ports: []mcsv1beta1.ServicePort{}}}
	m.Must(m.client.Create(t.Context(), theirs))
	api := m.serve("api")
	m.serveSlice("api", "a", "us", "10.1.0.9")
	m.Eventually("an event", func() bool { return len(importer.events.(*events.FakeRecorder).Events) == 1 })
	m.want("api", "import Headless ips=0 clusters=[] slices= []\n")
	m.Must(m.client.Delete(t.Context(), theirs))
	m.want("api", `import ClusterSetIP ips=1 clusters=[a b] slices=Present [Ready=True Ready]
service ClusterIP tcp-80
slice of a 10.1.0.9 tcp-80=8080 for kube-proxy
`)
	for _, o := range append(slices, served, api) {
		m.Must(m.served.Delete(t.Context(), o))
	}
	m.want("web", "")
}

// Namespaces that come later get their imports.
func TestNamespaceComesLater(t *testing.T) {
	m := newMember(t, "early-shop")
	m.start()
	m.namespace = "late-shop"
	m.createNamespace(m.served, m.namespace)
	m.serveWeb()
	m.settle()
	if writes := m.taken(); len(writes) > 0 {
		t.Errorf("without the namespace: %q", writes)
	}
	m.createNamespace(m.client, m.namespace)
	m.want("web", webOfTwo)
	m.settle()
	m.taken()
	m.Must(m.client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: m.namespace}}))
	m.Must(m.client.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{}, client.InNamespace(m.namespace)))
	m.settle()
	if writes := m.taken(); len(writes) > 0 {
		t.Errorf("while the namespace ends: %q", writes)
	}
}

// 200 imports at once, and then one change of each. The log has the times.
func TestManyImports(t *testing.T) {
	const imports = 200
	m := newMember(t, "many-shop")
	for i := range imports {
		name := fmt.Sprint("web-", i)
		m.serve(name)
		m.serveSlice(name, "a", "us", "10.1.0.1")
		m.serveSlice(name, "b", "eu", "10.2.0.1")
	}
	begin := time.Now()
	m.start()
	ready := func() int {
		var list mcsv1beta1.ServiceImportList
		m.Must(m.client.List(t.Context(), &list, client.InNamespace(m.namespace)))
		n := 0
		for _, i := range list.Items {
			if len(i.Spec.IPs) == 1 {
				n++
			}
		}
		return n
	}
	slicesOf := func() int {
		var list discoveryv1.EndpointSliceList
		m.Must(m.client.List(t.Context(), &list, client.InNamespace(m.namespace)))
		return len(list.Items)
	}
	m.Eventually("half", func() bool { return ready() >= imports/2 })
	t.Logf("half of the imports after %s", time.Since(begin))
	m.Eventually("all", func() bool { return ready() == imports })
	t.Logf("all imports after %s", time.Since(begin))
	m.Eventually("slices", func() bool { return slicesOf() == 2*imports })
	t.Logf("all slices after %s", time.Since(begin))
	m.settle()
	t.Logf("all statuses after %s, %d writes", time.Since(begin), len(m.taken()))
}

// Objects that anybody may make under Crossway's label do not count as imports that
// are missing: they would keep those that ended.
func TestOthersLabelsKeepNoImport(t *testing.T) {
	m := newMember(t, "labels-shop")
	for i := range 2 {
		m.serve(fmt.Sprint("web-", i))
	}
	_, stop := m.start()
	m.want("web-1", "import ClusterSetIP ips=1 clusters=[a b] slices=Absent [Ready=True Ready]\nservice ClusterIP tcp-80\n")
	m.settle()
	stop()
	for i := range 2 * manyImports {
		name := fmt.Sprint("theirs-", i)
		m.Must(m.client.Create(t.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: name,
				Labels: map[string]string{serviceimport.LabelManagedBy: serviceimport.ManagedBy, mcsv1beta1.LabelServiceName: name}},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 99}}},
		}))
	}
	m.Must(m.served.DeleteAllOf(t.Context(), &mcsv1beta1.ServiceImport{}, client.InNamespace(m.namespace)))
	m.serve("web-1")
	m.missingTime = time.Second
	m.start()
	m.want("web-0", "")
}
