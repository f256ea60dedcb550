package agent

import (
	"context"
	"fmt"
	"net/http"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
)

// indexServed is the index of served slices by the service that they belong to.
const indexServed = "service"

// MemberAPI is what the hub's member API serves to one member: a copy that follows
// it, and outlives every loss of the connection. Unlike a controller's cache it
// may be read before it has synced: Synced tells.
type MemberAPI struct {
	imports, slices cache.SharedIndexInformer
	consent         consent
	connection      *connection
}

// NewMemberAPI makes the copy. It connects to the API where the ConfigMap in the
// cluster's namespace says, which hub reads, with the credentials that now returns for each new request: another value after
// they were renewed, nil while there are none.
func NewMemberAPI(now func() *rest.Config, userAgent string, hub client.Reader, cluster fleet.ClusterName, scheme *runtime.Scheme) (*MemberAPI, error) {
	connection := newConnection(now, hub, v1alpha1.MemberNamespace(cluster))
	through := func(transport http.RoundTripper) *rest.Config {
		return &rest.Config{Host: "https://member-api", Transport: transport, UserAgent: userAgent, QPS: -1,
			ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeJSON}}
	}
	mapper, err := program.Mapper(scheme, []program.Kind{{Object: &mcsv1beta1.ServiceImport{}}, {Object: &discoveryv1.EndpointSlice{}}})(nil, nil)
	if err != nil {
		return nil, err
	}
	api, err := client.NewWithWatch(through(connection), client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("client for the member API: %w", err)
	}
	asking, err := client.New(through(once{connection}), client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("client for the member API: %w", err)
	}
	return &MemberAPI{
		imports: cache.NewSharedIndexInformer(listWatch(api, &mcsv1beta1.ServiceImportList{}), &mcsv1beta1.ServiceImport{}, 0, nil),
		slices: cache.NewSharedIndexInformer(listWatch(api, &discoveryv1.EndpointSliceList{}), &discoveryv1.EndpointSlice{}, 0, cache.Indexers{
			indexServed: func(o any) ([]string, error) { return []string{serviceOf(o.(client.Object)).String()}, nil },
		}),
		consent: consent{reader: asking, now: time.Now}, connection: connection,
	}, nil
}

// Transport sends requests to the API, whatever their host, once.
func (m *MemberAPI) Transport() http.RoundTripper { return once{m.connection} }

// Gossip is where the hub gossips, as host:port, and the fleet's name; "": it does not, or
// nothing is known yet.
func (m *MemberAPI) Gossip() (address, clusterSet string) { return m.connection.gossip() }

// listWatch lists first and then watches, which is all that the member API takes.
func listWatch(api client.WithWatch, list client.ObjectList) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			into := list.DeepCopyObject().(client.ObjectList)
			return into, api.List(ctx, into, &client.ListOptions{Raw: &options})
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, list, &client.ListOptions{Raw: &options})
		},
	}, noWatchList{})
}

type noWatchList struct{}

func (noWatchList) IsWatchListSemanticsUnSupported() bool { return true }

// NeedLeaderElection lets every replica follow the API, so that the next leader begins at once.
func (m *MemberAPI) NeedLeaderElection() bool { return false }

// Start follows the API until ctx ends.
func (m *MemberAPI) Start(ctx context.Context) error {
	go m.imports.RunWithContext(ctx)
	go m.slices.RunWithContext(ctx)
	<-ctx.Done()
	return nil
}

// Synced tells whether everything was listed once.
func (m *MemberAPI) Synced() bool { return m.imports.HasSynced() && m.slices.HasSynced() }

// serviceImport is the served import of a service; nil: there is none.
func (m *MemberAPI) serviceImport(service types.NamespacedName) *mcsv1beta1.ServiceImport {
	if o, ok, _ := m.imports.GetStore().GetByKey(service.String()); ok { // a store of keys has no errors
		return o.(*mcsv1beta1.ServiceImport)
	}
	return nil
}

// slicesOf are the served slices of a service.
func (m *MemberAPI) slicesOf(service types.NamespacedName) []discoveryv1.EndpointSlice {
	objects, _ := m.slices.GetIndexer().ByIndex(indexServed, service.String()) // the index exists
	var of []discoveryv1.EndpointSlice
	for _, o := range objects {
		of = append(of, *o.(*discoveryv1.EndpointSlice))
	}
	return of
}

// services are all services with a served import, or those of one namespace.
func (m *MemberAPI) services(namespace string) []types.NamespacedName {
	var keys []types.NamespacedName
	for _, o := range m.imports.GetStore().List() {
		if key := client.ObjectKeyFromObject(o.(client.Object)); namespace == "" || key.Namespace == namespace {
			keys = append(keys, key)
		}
	}
	return keys
}

// serviceOf is the service that an imported or served slice, or a derived Service, belongs to.
func serviceOf(o client.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[mcsv1beta1.LabelServiceName]}
}
