package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/condition/writer"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway"
	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/endpoints"
	"crossway.dev/crossway/pkg/lbsync/server"
	memberapi "crossway.dev/crossway/pkg/memberapi/server"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
	importagent "crossway.dev/crossway/pkg/serviceimport/agent"
	importhub "crossway.dev/crossway/pkg/serviceimport/hub"
	"crossway.dev/crossway/pkg/snapshot"
)

// newManager makes the caches, which start with the snapshot while the API server does not answer, and the election. Nobody
// is elected before the caches have objects of the API server.
func newManager(o Options, cluster *rest.Config) (manager.Manager, *snapshot.Store, *program.Leadership, error) {
	scheme := newScheme()
	objects := snapshot.New(snapshot.Options{Dir: o.SnapshotDir, Scheme: scheme, Kinds: objectsOf(servingKinds()), Others: objectsOf(writingKinds()),
		Skip: isCA(o.Namespace), Version: program.Version(), Log: ctrl.Log.WithName("hub").WithName("snapshot")})
	mgr, err := ctrl.NewManager(cluster, ctrl.Options{
		Scheme:                 scheme,
		MapperProvider:         program.Mapper(scheme, slices.Concat(servingKinds(), writingKinds(), otherKinds(), optionalKinds())),
		Cache:                  cacheOptions(o.Namespace, o.secretNamespaces(), objects.NewInformer),
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddr},
		HealthProbeBindAddress: o.HealthAddr,
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make the manager: %w", err)
	}
	objects.Watch(mgr.GetCache())
	leadership, err := program.LeaderElection{Enabled: o.LeaderElect, Namespace: o.Namespace, Name: "crossway-hub",
		Pod: os.Getenv("POD_NAME"), Ready: objects.Live()}.New(cluster)
	return mgr, objects, leadership, err
}

// wire connects the parts of the hub, in the order in which data flows. Nothing here waits for the API server. It is long
// because it is the one list of all parts, and has no decision in it.
func wire(o Options, cluster *rest.Config) (manager.Manager, *drain, error) {
	log := ctrl.Log.WithName("hub")
	cidrs, err := o.hubCIDRs()
	if err != nil {
		return nil, nil, err
	}
	mgr, objects, leadership, err := newManager(o, cluster)
	if err != nil {
		return nil, nil, err
	}

	// Statuses: one writer, with a source for each producer of condition types.
	statuses := writer.New(writer.Options{Client: mgr.GetClient(), Live: mgr.GetAPIReader()})
	gatewayReports := statuses.Source("gateway", gateway.ConditionTypes()...)
	poolReports := statuses.Source("edgepools", condition.EdgePoolReadyType, condition.EdgePoolConfigurationType)
	overflowReports := statuses.Source("endpoints", condition.TypeOverflowing)

	// Other replicas of the hub: what they know of their edges.
	links := newLink(o, mgr.GetCache())
	replicas := reconciler.NewReplicas(links, clock.RealClock{})

	// Edges: the xDS server, whose observer is set below.
	xds := server.New(o.faults.config(server.Config{MaxEdges: o.MaxEdges, Authorize: authorize(mgr.GetCache()),
		Renew: renew(mgr.GetCache(), o.Namespace), Log: log.WithName("xds")}))

	// Members: what they read of the fleet.
	api := newMemberAPI(o, memberapi.Config{Informers: mgr.GetCache(), Reserved: cidrs, Live: objects.Live(), Sign: signGossip(o, mgr.GetCache()), Log: log.WithName("member-api")})

	// Slices and load reports -> load assignments (frequent).
	loop := endpoints.New(divideTogether(endpoints.Config{Cache: mgr.GetCache(), Publisher: loadAssignments{xds}, Reporter: overflowReports,
		Events: mgr.GetEventRecorder("crossway-hub"), Leads: leadership.Leads,
		Hub: endpoints.Hub{Place: o.place(), CIDRs: cidrs}, Log: log.WithName("endpoints")}, o, links))

	// Objects -> Build -> everything else (rare).
	records := reconciler.NewRecords(mgr.GetClient(), o.Namespace)
	history := importhub.NewMerges(mgr.GetCache())
	gateways := reconciler.New(reconciler.Options{Records: records, Replicas: replicas, Cache: mgr.GetCache(), Merges: history, Publisher: o.faults.publisher(snapshots{xds, loop}),
		Assigner: o.faults.assigner(loop), Imports: api.imports(), Reporter: gatewayReports, PoolReporter: poolReports,
		Events: mgr.GetEventRecorder("crossway-hub"), Leads: leadership.Leads, SecretNamespaces: o.secretNamespaces()})
	reached := newReached(links, isMember(mgr.GetCache()))
	xds.Observe(o.faults.observer(observer(gateways, loop, reached)))

	// Mutual TLS, once there is something to serve.
	edges := server.NewListener(server.ListenerConfig{Server: xds, Address: o.XDSAddr, Informers: mgr.GetCache(),
		Secret: types.NamespacedName{Namespace: o.Namespace, Name: registration.XDSSecret}, Ready: gateways.Built(), Log: log})
	settling := &settling{serving: edges.Serving(), settled: make(chan struct{})}
	signer, certificates := newCertificates(o, mgr, fleetEdges{xds, replicas, links.Replicas, settling}, statuses.Source("certificates", condition.EdgePoolCertificatesType))

	// Controllers that reconcile every object once at the start wait until edges have what they need.
	gossip, gossipErr := newGossip(o, mgr.GetCache(), links)
	known := memberFacts{options: o, merges: history, reserved: cidrs, gossip: gossip, reached: reached}
	members := afterBuilt{gateways.Built(), func() error { return wireMembers(mgr, leadership, known) }}

	watchdog := &program.Watchdog{After: gateways.Built(), Pings: map[string]func(context.Context) error{
		"the loop of Gateways": gateways.Ping, "the loop of endpoints": loop.Ping,
		"the xDS server": func(context.Context) error { xds.Ping(); return nil },
		"the member API": api.ping, "a writer": leadership.Ping,
	}}
	crdVersion := &crdVersion{reader: mgr.GetAPIReader(), set: gateways.SetCRDVersion, log: log}
	forMembers, apiErr := api.runnables(cluster, mgr, edges)
	runnables := []manager.Runnable{afterBuilt{gateways.Built(), tuneMemory}, objects, leadership, leadership.EachTerm(statuses), leadership.EachTerm(records), loop, gateways, leadership.EachTerm(signer),
		links, server.NewSpreader(xds, links, edges.Serving(), log.WithName("xds")), edges, settling, certificates, members, watchdog, crdVersion}
	parts := observedParts{statuses, gateways, loop, xds, api.server, certificates, links, gossip}
	parts.registerMetrics(append(gossip.collectors(), program.Metrics{Program: "crossway-hub", Leadership: leadership, Watchdog: watchdog}, registrationhub.NewMetrics(mgr.GetCache(), gossip.hears(o)))...)
	if o.DebugAddr != "" {
		runnables = append(runnables, parts.debug(o.DebugAddr, log))
	}
	drain := &drain{leave: func() { links.Leave(); loop.Leave() }, others: links.OthersServe, parts: []func(context.Context, time.Duration){xds.Drain, api.server.Drain}, log: log}
	return mgr, drain, errors.Join(apiErr, gossipErr, add(mgr, slices.Concat(runnables, forMembers, gossip.runnables())), addChecks(mgr, watchdog, edges.Serving(), objects, &drain.begun))
}

// newCertificates makes what signs edges' certificates, and what reports when they end.
func newCertificates(o Options, mgr manager.Manager, edges fleetEdges, reporter *writer.Source) (*registrationhub.Signer, *registrationhub.EdgeCertificates) {
	log := ctrl.Log.WithName("hub").WithName("certificates")
	signer := &registrationhub.Signer{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Namespace: o.Namespace, Names: o.serverNames(),
		OldUsers: edges.usersOf, Events: mgr.GetEventRecorder("crossway-hub"), Log: log}
	return signer, &registrationhub.EdgeCertificates{Reader: mgr.GetCache(), Namespace: o.Namespace, Edges: edges.connected, Settled: edges.settled, Fault: signer.Fault,
		Reporter: reporter, Log: log}
}

func add(mgr manager.Manager, runnables []manager.Runnable) error {
	for _, r := range runnables {
		if err := mgr.Add(r); err != nil {
			return fmt.Errorf("add %T: %w", r, err)
		}
	}
	return nil
}

// afterBuilt is a Runnable of every replica that starts something after the first Build.
type afterBuilt struct {
	built <-chan struct{}
	start func() error
}

func (afterBuilt) NeedLeaderElection() bool { return false }

func (a afterBuilt) Start(ctx context.Context) error {
	select {
	case <-a.built:
		return a.start()
	case <-ctx.Done():
		return nil
	}
}

// memberFacts are what the controllers of members are made from.
type memberFacts struct {
	options  Options
	merges   *importhub.Merges
	reserved []netip.Prefix // the hub's own ranges
	gossip   *hubGossip
	reached  *reached
}

// evidence is what shows beside its Lease whether a member lives.
func (f memberFacts) evidence(cluster fleet.ClusterName) registration.Evidence {
	return registration.Evidence{Gossip: f.gossip.word(cluster), Edges: f.reached.regions(cluster)}
}

// wireMembers adds the controllers of members: their registration, and MemberExports -> FleetServices -> ServiceImports of the hub's own
// cluster.
func wireMembers(mgr manager.Manager, leadership *program.Leadership, f memberFacts) error {
	o, merges, reserved := f.options, f.merges, f.reserved
	registrar, err := registrationhub.NewRegistrar(mgr, reserved)
	if err != nil {
		return err
	}
	registrar.Evidence = f.evidence
	f.gossip.wakes(registrar.Wake)
	joiner, err := registrationhub.NewJoiner(mgr, credentialKinds[o.Credential])
	if err != nil {
		return err
	}
	edgeJoiner, err := registrationhub.NewEdgeJoiner(mgr, o.Namespace)
	if err != nil {
		return err
	}
	merger, err := importhub.NewMerger(mgr, merges, reserved)
	if err != nil {
		return err
	}
	projector, err := importagent.NewProjector(mgr, mgr)
	if err != nil {
		return err
	}
	announcer, err := registrationhub.NewAnnouncer(mgr, o.Namespace, o.agents())
	if err != nil {
		return err
	}
	profiles, err := registrationhub.NewProfiles(mgr, o.ClusterSet)
	if err != nil {
		return err
	}
	for _, add := range []func(ctrl.Manager, *program.Leadership) error{registrar.SetupWithManager, profiles.SetupWithManager, joiner.SetupWithManager, edgeJoiner.SetupWithManager, announcer.SetupWithManager, merger.SetupWithManager, projector.SetupWithManager} {
		if err := add(mgr, leadership); err != nil {
			return err
		}
	}
	return nil
}

// addChecks adds /healthz, nothing is stuck, and /readyz, edges can connect.
func addChecks(mgr manager.Manager, watchdog *program.Watchdog, serving <-chan struct{}, objects *snapshot.Store, draining *atomic.Bool) error {
	ready := func(*http.Request) error {
		if draining.Load() {
			return errors.New("this replica stops")
		}
		select {
		case <-serving:
			return nil
		default:
			return fmt.Errorf("the first Build is not published yet, or there is no xDS serving certificate; kinds that are not read yet: %s",
				strings.Join(objects.Waiting(), ", "))
		}
	}
	return errors.Join(mgr.AddHealthzCheck("watchdog", watchdog.Check), mgr.AddReadyzCheck("edges", ready))
}

const (
	crdTimeout       = 10 * time.Second
	crdRetryInterval = 5 * time.Second
)

// crdVersion reads the version of the Gateway API's CRDs once: restart the hub after an upgrade of them. It is not
// checked where the hub may not read it. It is a Runnable that tries again while the API server does not answer.
type crdVersion struct {
	reader client.Reader
	set    func(version string)
	log    logr.Logger
}

func (*crdVersion) NeedLeaderElection() bool { return false }

func (v *crdVersion) Start(ctx context.Context) error {
	for !v.read(ctx) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(crdRetryInterval):
		}
	}
	return nil
}

// read returns false if another try may help.
func (v *crdVersion) read(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(ctx, crdTimeout)
	defer cancel()
	crd := gatewayCRD()
	err := v.reader.Get(limited, client.ObjectKeyFromObject(crd), crd)
	if err == nil {
		v.set(crd.Annotations["gateway.networking.k8s.io/bundle-version"])
		return true
	}
	if ctx.Err() == nil {
		v.log.Info("the version of the Gateway API CRDs is not known", "reason", err.Error())
	}
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
}
