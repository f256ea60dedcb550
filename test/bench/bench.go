package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/pkg/registration"
)

// LabConfig is the lab that the bench needs: three members with an agent, in two
// regions. The first has exports, the others import in part "imports".
func LabConfig() lab.Config { return lab.Config{} }

// LabInstall is how Crossway is installed: as shipped, but with one replica of the
// hub, whose log says when responses leave and ACKs come.
func LabInstall() lab.InstallOptions {
	return lab.InstallOptions{Hub: "replicas: 1\nlogLevel: debug\n"}
}

// Bench is a fleet that is measured. Its methods run one at a time.
type Bench struct {
	fleet  *lab.Lab
	out    io.Writer
	hub    client.WithWatch
	member client.WithWatch
	log    *Log
	edges  []edge

	services []service
	turn     int  // counts changes, so that each differs from the one before
	imported bool // part "imports" has been measured
}

// New prepares a fleet that was just installed (see LabConfig, LabInstall); it
// writes to out what it does. The hub's log is read until ctx ends.
func New(ctx context.Context, fleet *lab.Lab, out io.Writer) (*Bench, error) {
	b := &Bench{fleet: fleet, out: out, log: NewLog()}
	var err error
	if b.hub, err = clientOf(fleet.Hub.REST); err != nil {
		return nil, err
	}
	if b.member, err = clientOf(fleet.Members[realMember].REST); err != nil {
		return nil, err
	}
	for _, name := range []string{namespace, burstNamespace, bareNamespace} {
		for _, c := range []client.Client{b.hub, b.member} {
			if err := ignoreExists(c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range hubOnly {
		if err := b.join(ctx, m.name, v1alpha1.MemberClusterSpec{Accepted: true, Exports: exports, Region: m.region, Zone: m.region + "-bench-1", EndpointCIDRs: []string{m.cidr}}); err != nil {
			return nil, err
		}
	}
	if err := b.exportOnly(ctx, realMember); err != nil {
		return nil, err
	}
	if err := fleet.Hub.Apply(ctx, []byte(setupHub)); err != nil {
		return nil, err
	}
	hub, err := b.hubPod(ctx)
	if err != nil {
		return nil, err
	}
	logs, err := filepath.Glob(filepath.Join(fleet.LogDir, lab.System+"_"+hub.Name+"_hub_*.log"))
	if err != nil || len(logs) != 1 {
		return nil, fmt.Errorf("want one log of pod %s in %s, found %q", hub.Name, fleet.LogDir, logs)
	}
	if err := b.log.Tail(ctx, logs[0]); err != nil {
		return nil, err
	}
	b.edges, err = envoysOf(ctx, b.hub, len(fleet.Regions))
	return b, err
}

// exports is what each member may export: more than by default.
var exports = v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}, MaxExports: 5000, MaxEndpoints: 500_000}

// exportOnly gives a member of the lab the same, and has it import nothing: what
// imports cost is measured apart, in the other members.
func (b *Bench) exportOnly(ctx context.Context, name string) error {
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := b.hub.Get(ctx, client.ObjectKeyFromObject(m), m); err != nil {
		return err
	}
	before := m.DeepCopy()
	m.Spec.Exports = exports
	m.Spec.Imports = &v1alpha1.MemberImportRules{}
	return b.hub.Patch(ctx, m, client.MergeFrom(before))
}

// clientOf returns a client without rate limit.
func clientOf(config *rest.Config) (client.WithWatch, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, mcsv1beta1.Install, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	config = rest.CopyConfig(config)
	config.QPS = -1
	return client.NewWithWatch(config, client.Options{Scheme: scheme})
}

// join makes a MemberCluster and waits until its agent could write to the hub: its
// namespace is there, and the hub has counted what its quota limits.
func (b *Bench) join(ctx context.Context, name string, spec v1alpha1.MemberClusterSpec) error {
	if err := ignoreExists(b.hub.Create(ctx, &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})); err != nil {
		return err
	}
	for {
		var quota corev1.ResourceQuota
		err := b.hub.Get(ctx, client.ObjectKey{Namespace: "member-" + name, Name: registration.RoleName}, &quota)
		if err == nil && len(quota.Status.Used) == len(quota.Spec.Hard) {
			return nil
		}
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the quota in namespace member-%s: %w", name, err)
		}
	}
}

// RequestPart and MembershipPart are the parts that need no lab, see packages request
// and membership.
const RequestPart, MembershipPart = "request", "membership"

// Parts of a measurement, in their order; "grow" comes first of those on a fleet, and always.
var Parts = []string{RequestPart, MembershipPart, "slices", "routes", "members", "rest", "warm", "cold", "burst", "imports", ScalePart}

// Measure grows the fleet to a size, which is not below the last one, and
// measures the parts there.
func (b *Bench) Measure(ctx context.Context, size int, parts []string) (Figures, error) {
	f := Figures{}
	for _, part := range []struct {
		name, what string
		do         func(context.Context, int, Figures) error
	}{
		{"grow", "growing", b.grow},
		{"slices", "single slices on the hub", b.slices},
		{"routes", "single routes", b.routes},
		{"members", "single slices in the member", b.members},
		{"rest", "at rest", b.atRest},
		{"warm", "hub restart, warm", b.warm},
		{"cold", "hub restart, cold", b.cold},
		{"burst", "200 exports at once", b.burst},
		{"imports", "what members import", b.imports},
	} {
		if part.name != "grow" && !slices.Contains(parts, part.name) {
			continue
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, 5*time.Minute)
		err := part.do(limited, size, f)
		cancel()
		if err != nil {
			return f, fmt.Errorf("%d routes: %s: %w", size, part.what, err)
		}
		fmt.Fprintf(b.out, "%d routes: %s (%s)\n", size, part.what, time.Since(began).Round(100*time.Millisecond))
	}
	return f, nil
}

// grow adds services until there are size, and waits until every edge has all.
func (b *Bench) grow(ctx context.Context, size int, f Figures) error {
	hub, ok := findHub()
	if !ok {
		return errors.New("no hub runs")
	}
	if err := hub.resetPeak(); err != nil {
		return err
	}
	began, mark := time.Now(), b.log.Mark()
	var fresh []service
	for n := len(b.services); n < size; n++ {
		fresh = append(fresh, service{namespace, fmt.Sprintf("s%d", n), n})
	}
	err := each(fresh, func(s service) error {
		if err := create(ctx, b.member, append(s.memberService(), s.export())...); err != nil {
			return err
		}
		return create(ctx, b.hub, append(s.hubExports(), s.route(0))...)
	})
	if err != nil {
		return err
	}
	b.services = append(b.services, fresh...)
	if err := b.complete(ctx, mark, fresh); err != nil {
		return err
	}
	f["grow_s"] = Value(time.Since(began).Seconds())
	if err := b.quiet(ctx); err != nil {
		return err
	}
	return b.awaitEndpoints(ctx, size*perCluster*clusters)
}

// complete waits until each edge has ACKed a load assignment of each service.
func (b *Bench) complete(ctx context.Context, mark int, all []service) error {
	missing := map[string]map[string]bool{}
	for _, e := range b.edges {
		missing[e.name] = map[string]bool{}
		for _, s := range all {
			missing[e.name][s.assignment()] = true
		}
	}
	if len(all) == 0 {
		return nil
	}
	err := b.log.Follow(ctx, mark, func(e Event) bool {
		if e.What != "acked" || e.Type != "assignment" {
			return false
		}
		for name := range e.Versions {
			delete(missing[e.Node], routeOf(name))
		}
		if len(missing[e.Node]) == 0 {
			delete(missing, e.Node)
		}
		return len(missing) == 0
	})
	if err != nil {
		return fmt.Errorf("%d of %d edges lack assignments: %w", len(missing), len(b.edges), err)
	}
	return nil
}

// routeOf is the route's part of a load assignment's name, see service.assignment.
func routeOf(assignment string) string {
	for i, slashes := 0, 0; i < len(assignment); i++ {
		if assignment[i] == '/' {
			if slashes++; slashes == 2 {
				return assignment[:i+1]
			}
		}
	}
	return assignment
}

// each does the same for all items, 16 at a time, and returns the first error.
func each[T any](items []T, do func(T) error) error {
	var mu sync.Mutex
	var first error
	var all sync.WaitGroup
	next := make(chan T)
	for range 16 {
		all.Go(func() {
			for item := range next {
				err := do(item)
				mu.Lock()
				if first == nil {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	for _, item := range items {
		next <- item
	}
	close(next)
	all.Wait()
	return first
}

func create(ctx context.Context, c client.Client, objects ...client.Object) error {
	for _, o := range objects {
		if err := ignoreExists(c.Create(ctx, o)); err != nil {
			return fmt.Errorf("create %T %s: %w", o, client.ObjectKeyFromObject(o), err)
		}
	}
	return nil
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
