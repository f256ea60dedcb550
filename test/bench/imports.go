package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab"
)

// importsNamespace has the services that one member exports at once, and importers import. It is neither on the hub
// nor does the exporter import from it, so each write counts for one purpose.
const importsNamespace = "imports"

// importers are the members that import.
var importers = []string{"us-east", "eu-west"}

// importEndpoints is the number of endpoints of each service. Few: the members' kube-proxies share the machine with
// everything else, and program each of them.
const importEndpoints = 5

// importSlice is the exporter's slice of a service; each turn gives its last endpoint another address.
func importSlice(s service, turn int) *discoveryv1.EndpointSlice {
	slice := s.memberSlice(0)
	slice.Endpoints = slice.Endpoints[:importEndpoints]
	slice.Endpoints[importEndpoints-1].Addresses = []string{lastAddress(s, turn)}
	return slice
}

func lastAddress(s service, turn int) string { return address("10.1", 40000+s.number*40+turn) }

// importer is one importing member with its events of importsNamespace.
type importer struct {
	cluster *lab.Cluster
	client  client.WithWatch
}

// arrival is one event in an importer.
type arrival struct {
	importer, service string
	at                time.Time
	ip                bool     // a ServiceImport with an IP
	endpoints         []string // the addresses of an imported slice
}

// imports measures, once, what it costs until other members have what one exports: 200 exports at once, then single
// changes of slices, then a change of all at once.
func (b *Bench) imports(ctx context.Context, _ int, f Figures) error {
	if b.imported {
		return nil
	}
	b.imported = true
	var all []service
	for i := range burstSize {
		all = append(all, service{importsNamespace, fmt.Sprintf("i%d", i), i})
	}
	var to []importer
	for _, name := range importers {
		c := b.fleet.Members[name]
		api, err := clientOf(c.REST)
		if err != nil {
			return err
		}
		to = append(to, importer{c, api})
	}
	if err := b.prepareImports(ctx, all, to); err != nil {
		return err
	}
	events, stop, err := arrivals(ctx, to)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.importAll(ctx, all, events, f); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	bare, err := b.bareImports(ctx, all, to)
	if err != nil {
		return fmt.Errorf("bare writes: %w", err)
	}
	f["imports_bare_ms"] = Millis(bare)
	if err := b.importChanges(ctx, all, events, f); err != nil {
		return fmt.Errorf("changes: %w", err)
	}
	return b.clearImports(ctx, to)
}

// clearImports deletes what the part made.
func (b *Bench) clearImports(ctx context.Context, to []importer) error {
	errs := []error{
		b.member.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: importsNamespace}}),
		b.member.DeleteAllOf(ctx, &mcsv1beta1.ServiceImport{}, client.InNamespace(bareNamespace)),
	}
	for _, o := range []client.Object{&mcsv1beta1.ServiceImport{}, &v1alpha1.FleetService{}, &discoveryv1.EndpointSlice{}} {
		errs = append(errs, b.hub.DeleteAllOf(ctx, o, client.InNamespace(bareNamespace)))
	}
	for _, i := range to {
		for _, name := range []string{importsNamespace, bareNamespace} {
			errs = append(errs, i.client.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
		}
	}
	return errors.Join(errs...)
}

// prepareImports makes the namespaces, and the services in the exporter.
func (b *Bench) prepareImports(ctx context.Context, all []service, to []importer) error {
	for _, c := range append([]importer{{client: b.member}}, to...) {
		for _, name := range []string{importsNamespace, bareNamespace} {
			if err := create(ctx, c.client, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
				return err
			}
		}
	}
	err := each(all, func(s service) error {
		return create(ctx, b.member, s.memberService()[0], importSlice(s, 0))
	})
	if err != nil {
		return err
	}
	return b.quiet(ctx)
}

// arrivals are the events of the importers' ServiceImports and slices, until stop.
func arrivals(ctx context.Context, to []importer) (events chan arrival, stop func(), err error) {
	events = make(chan arrival, 100000)
	var watches []watch.Interface
	stop = func() {
		for _, w := range watches {
			w.Stop()
		}
	}
	for _, i := range to {
		for _, list := range []client.ObjectList{&mcsv1beta1.ServiceImportList{}, &discoveryv1.EndpointSliceList{}} {
			w, err := i.client.Watch(ctx, list, client.InNamespace(importsNamespace))
			if err != nil {
				stop()
				return nil, nil, err
			}
			watches = append(watches, w)
			go func() {
				for e := range w.ResultChan() {
					if a, ok := arrivalOf(e); ok {
						a.importer = i.cluster.Name
						events <- a
					}
				}
			}()
		}
	}
	return events, stop, nil
}

func arrivalOf(e watch.Event) (arrival, bool) {
	a := arrival{at: time.Now()}
	switch o := e.Object.(type) {
	case *mcsv1beta1.ServiceImport:
		a.service, a.ip = o.Name, len(o.Spec.IPs) > 0
		return a, e.Type != watch.Deleted && a.ip
	case *discoveryv1.EndpointSlice:
		a.service = o.Labels[mcsv1beta1.LabelServiceName]
		if len(o.Endpoints) == 0 || e.Type == watch.Deleted || a.service == "" {
			return a, false
		}
		for _, e := range o.Endpoints {
			a.endpoints = append(a.endpoints, e.Addresses...)
		}
		return a, true
	}
	return a, false
}

// awaitArrivals returns for each service how long after began both importers had what complete asks for.
func awaitArrivals(ctx context.Context, events <-chan arrival, began map[string]time.Time, complete func(seen []arrival) bool) ([]time.Duration, error) {
	seen, done := map[string][]arrival{}, map[string]int{}
	var took []time.Duration
	for len(took) < len(began) {
		select {
		case a := <-events:
			key := a.importer + "/" + a.service
			if _, ours := began[a.service]; !ours || complete(seen[key]) {
				continue
			}
			if seen[key] = append(seen[key], a); complete(seen[key]) {
				if done[a.service]++; done[a.service] == len(importers) {
					took = append(took, a.at.Sub(began[a.service]))
				}
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d services arrived in %v: %w", len(took), len(began), importers, ctx.Err())
		}
	}
	return took, nil
}

// importAll creates all exports at once, and waits until each has an IP and endpoints in both importers.
func (b *Bench) importAll(ctx context.Context, all []service, events <-chan arrival, f Figures) error {
	began, err := b.writeAll(all, func(s service) error { return b.member.Create(ctx, s.export()) })
	if err != nil {
		return err
	}
	took, err := awaitArrivals(ctx, events, began, func(seen []arrival) bool {
		return slices.ContainsFunc(seen, func(a arrival) bool { return a.ip }) && slices.ContainsFunc(seen, func(a arrival) bool { return len(a.endpoints) > 0 })
	})
	if err != nil {
		return err
	}
	f["imports_ready_ms"] = Millis(took)
	return b.quiet(ctx)
}

// writeAll writes for all services, 16 at a time, and says when each write began.
func (b *Bench) writeAll(all []service, write func(service) error) (map[string]time.Time, error) {
	var mu sync.Mutex
	began := map[string]time.Time{}
	return began, each(all, func(s service) error {
		mu.Lock()
		began[s.name] = time.Now()
		mu.Unlock()
		return write(s)
	})
}

// importChanges measures single changes of slices, counts what they write, and then changes all at once.
func (b *Bench) importChanges(ctx context.Context, all []service, events <-chan arrival, f Figures) error {
	counted := []*lab.Cluster{b.fleet.Hub, b.fleet.Members[realMember]}
	var before []int
	for _, c := range counted {
		n, err := objectWrites(ctx, c)
		if err != nil {
			return err
		}
		before = append(before, n)
	}
	var single []time.Duration
	for i, s := range all {
		began := map[string]time.Time{s.name: time.Now()}
		if err := b.member.Update(ctx, importSlice(s, 1)); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		took, err := awaitArrivals(limited, events, began, func(seen []arrival) bool { return hasAddress(seen, lastAddress(s, 1)) })
		cancel()
		if err != nil {
			return fmt.Errorf("change %d: %w", i, err)
		}
		single = append(single, took...)
		if err := pause(ctx, gap); err != nil {
			return err
		}
	}
	f["imports_change_ms"] = Millis(single)
	for i, name := range []string{"imports_hub_writes", "imports_source_writes"} {
		n, err := objectWrites(ctx, counted[i])
		if err != nil {
			return err
		}
		if i == 1 {
			n -= len(all) // our own
		}
		f[name] = Value(float64(n-before[i]) / float64(len(all)))
	}
	began, err := b.writeAll(all, func(s service) error { return b.member.Update(ctx, importSlice(s, 2)) })
	if err != nil {
		return err
	}
	numbers := map[string]service{}
	for _, s := range all {
		numbers[s.name] = s
	}
	took, err := awaitArrivals(ctx, events, began, func(seen []arrival) bool {
		return len(seen) > 0 && hasAddress(seen, lastAddress(numbers[seen[0].service], 2))
	})
	f["imports_changes_ms"] = Millis(took)
	return err
}

func hasAddress(seen []arrival, address string) bool {
	return slices.ContainsFunc(seen, func(a arrival) bool { return slices.Contains(a.endpoints, address) })
}

// objectWrites counts the writes in a cluster so far, but for what is written at intervals: Leases, events and the
// status of MemberClusters.
func objectWrites(ctx context.Context, c *lab.Cluster) (int, error) {
	all, err := writes(ctx, c)
	n := 0
	for name, count := range all {
		if !strings.Contains(name, "memberclusters") {
			n += count
		}
	}
	return n, err
}

// bareImports makes the writes that the imports of all services need, by one client, 16 services at a time: each at
// once after the one that it follows from. They are objects that Crossway ignores, except that kube-proxy programs
// the Services as it does for imports. Times are from the first write of all.
func (b *Bench) bareImports(ctx context.Context, all []service, to []importer) ([]time.Duration, error) {
	began := time.Now()
	var mu sync.Mutex
	var took []time.Duration
	err := each(all, func(s service) error {
		s.namespace = bareNamespace
		if err := bareImport(ctx, b.member, s, false); err != nil { // in the place of the ServiceExport
			return err
		}
		if err := b.bareExport(ctx, s); err != nil {
			return err
		}
		errs := make([]error, len(to))
		var both sync.WaitGroup
		for i, importer := range to {
			both.Go(func() { errs[i] = bareImport(ctx, importer.client, s, true) })
		}
		both.Wait()
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(began))
		return errors.Join(errs...)
	})
	return took, err
}

// bareImport writes a ServiceImport and its status, and where whole says so a Service and a slice.
func bareImport(ctx context.Context, c client.Client, s service, whole bool) error {
	i := &mcsv1beta1.ServiceImport{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.name},
		Spec:       mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ClusterSetIP, Ports: []mcsv1beta1.ServicePort{{Name: "http", Port: 8080, Protocol: corev1.ProtocolTCP}}},
	}
	if whole {
		service := s.memberService()[0].(*corev1.Service)
		service.Labels = nil
		if err := create(ctx, c, service); err != nil {
			return err
		}
		i.Spec.IPs = []string{service.Spec.ClusterIP}
	}
	if err := create(ctx, c, i); err != nil {
		return err
	}
	if whole {
		slice := importSlice(s, 0)
		delete(slice.Labels, noProxy)
		if err := create(ctx, c, slice); err != nil {
			return err
		}
	}
	i.Status.Clusters = []mcsv1beta1.ClusterStatus{{Cluster: realMember}}
	return c.Status().Update(ctx, i) // whose version create has set
}

// bareExport writes what an export is on the hub: a MemberExport and its status, in whose place the hub's own status
// writer leaves a ServiceImport alone, a slice, and the FleetService.
func (b *Bench) bareExport(ctx context.Context, s service) error {
	if err := bareImport(ctx, b.hub, s, false); err != nil {
		return err
	}
	slice := importSlice(s, 0)
	slice.Labels = nil
	export := s.hubExports()[0].(*v1alpha1.MemberExport).Spec
	return create(ctx, b.hub, slice, &v1alpha1.FleetService{
		ObjectMeta: metav1.ObjectMeta{Namespace: bareNamespace, Name: s.name},
		Spec: v1alpha1.FleetServiceSpec{
			Service: export.Service, ServiceProperties: export.ServiceProperties, Ports: []v1alpha1.FleetServicePort{{ServicePort: export.Ports[0]}},
			Clusters: []v1alpha1.ExportingCluster{{Name: realMember, ExportRecord: v1alpha1.ExportRecord{Sequence: 1}}},
		},
	})
}
