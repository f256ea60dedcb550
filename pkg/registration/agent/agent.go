package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

// Options are what an Agent needs to know.
type Options struct {
	Namespace   string // of the agent in its own cluster
	Pod, PodUID string // of the agent, for its Events and its name on the Lease
	UserAgent   string
	QPS         float32 // of requests to the hub
	Burst       int
	Leave       Leaver
	// Lease returns annotations for the Lease beside the agent's own. Nil: none.
	Lease func() map[string]string
}

// Agent keeps a cluster's credential of the hub and its claim to the member's Lease.
type Agent struct {
	// read-only after New
	options     Options
	member      client.Reader // this cluster, without a cache
	scheme      *runtime.Scheme
	secrets     *secrets
	status      *status
	clock       *hubClock
	link        *link
	now, hubNow func() time.Time // by this cluster's clock, and by the hub's
	holder      string
	userAgent   string

	stepping sync.Mutex // held by Elected and Keep: a term that ends may overlap with the next
	uid      string     // of this cluster; guarded by stepping, as is clocks
	clocks   registration.ClockHistory

	held    atomic.Pointer[coordinationv1.Lease] // as it was written last
	onLease atomic.Pointer[func(*coordinationv1.Lease)]
}

// New makes an Agent of the cluster. It sends no request.
func New(c cluster.Cluster, o Options) (*Agent, error) {
	followed, err := newSecrets(c.GetConfig(), o.Namespace)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		options: o, member: c.GetAPIReader(), scheme: c.GetScheme(), secrets: followed, now: time.Now, userAgent: o.UserAgent,
		holder: o.Pod + "_" + machine(),
	}
	a.clock = &hubClock{now: time.Now}
	a.hubNow = a.clock.Now
	a.link = &link{config: followed.configNow, clock: a.clock}
	a.status = &status{
		log: ctrl.Log.WithName("join"), events: c.GetEventRecorder(o.UserAgent), secrets: followed.client, states: map[topic]state{},
		pod: &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Pod, UID: types.UID(o.PodUID)}},
	}
	return a, nil
}

// machine names the boot of the machine. A pod whose container is restarted stays on it; a
// copy of the cluster runs on others.
func machine() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func hubKinds() []program.Kind {
	return []program.Kind{{Object: &certificatesv1.CertificateSigningRequest{}, ClusterScoped: true}, {Object: &coordinationv1.Lease{}}, {Object: &corev1.ServiceAccount{}},
		{Object: &v1alpha1.MemberExport{}}, {Object: &discoveryv1.EndpointSlice{}}} // the last two: to withdraw
}

// NeedLeaderElection says that every replica follows the credential.
func (a *Agent) NeedLeaderElection() bool { return false }

// Start follows the agent's Secrets until ctx ends.
func (a *Agent) Start(ctx context.Context) error {
	a.secrets.run(ctx)
	return nil
}

// Elected runs when this replica was elected, before it works: it joins if need be, and
// returns once the cluster may work for its member, or when ctx ends.
func (a *Agent) Elected(ctx context.Context) {
	a.stepping.Lock()
	defer a.stepping.Unlock()
	if !a.secrets.synced(ctx) || !a.readUID(ctx) {
		return
	}
	var c claim
	for ctx.Err() == nil {
		have, changed := a.secrets.now() // before it is looked at: what changes meanwhile is looked at again
		if a.secrets.leaving() {
			a.leaves(ctx, have)
		}
		again := a.step(ctx)
		have, _ = a.secrets.now()
		if have != nil && !a.secrets.leaving() {
			if name := string(have.Member); name != c.member {
				c = claim{member: name}
			}
			ok, soon := a.tryClaim(ctx, &c, have)
			if ok {
				return
			}
			again = min(again, soon)
		}
		wait(ctx, again, changed)
	}
}

// Keep renews the credential, and joins anew when there is a new token, until ctx ends.
// It is run in each term.
func (a *Agent) Keep(ctx context.Context) error {
	a.stepping.Lock()
	defer a.stepping.Unlock()
	for ctx.Err() == nil {
		_, changed := a.secrets.now()
		if a.secrets.leaving() {
			return errLeaving
		}
		wait(ctx, a.step(ctx), changed)
	}
	return nil
}

func wait(ctx context.Context, long time.Duration, changed <-chan struct{}) {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-changed:
	}
}

// readUID reads the UID of namespace kube-system, which is the cluster's (KEP-2149). It
// returns false if ctx ended first.
func (a *Agent) readUID(ctx context.Context) bool {
	for ctx.Err() == nil {
		var system corev1.Namespace
		err := a.member.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system)
		if err == nil {
			a.uid = string(system.UID)
			return true
		}
		a.status.say(ctx, topicJoin, state{reason: "NoUID", blocks: true, wrong: true, message: fmt.Sprintf("cannot read the UID of namespace kube-system, which is this cluster's identity: %v", err)})
		wait(ctx, askInterval, nil)
	}
	return false
}

// Credential waits for the credential of this cluster. ok is false if ctx ended first.
func (a *Agent) Credential(ctx context.Context) (c Credential, ok bool) {
	for ctx.Err() == nil {
		have, changed := a.secrets.now()
		if have != nil {
			return *have, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return Credential{}, false
}

// AwaitOther returns once the credential is of another member or hub than c, or when ctx
// ends. What works with c must then begin anew.
func (a *Agent) AwaitOther(ctx context.Context, c Credential) error {
	for ctx.Err() == nil {
		have, changed := a.secrets.now()
		if have != nil && (have.Member != c.Member || have.Server != c.Server) {
			return fmt.Errorf("this cluster has joined as %s at %s; it was %s at %s, and starts anew", have.Member, have.Server, c.Member, c.Server)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// HubConfig is how clients call the hub of a credential: with the newest that there is, for
// each request.
func (a *Agent) HubConfig(c Credential) *rest.Config {
	return &rest.Config{Host: c.Server, Transport: a.link, UserAgent: a.userAgent, QPS: a.options.QPS, Burst: a.options.Burst}
}

// Now is the hub with the credential of now, for those who call other servers with it;
// nil: there is none. It is another value after each renewal.
func (a *Agent) Now() *rest.Config { return a.secrets.configNow() }

// OnLease has a function take note of the Lease whenever the hub stored it. It does not block.
func (a *Agent) OnLease(heard func(*coordinationv1.Lease)) {
	a.onLease.Store(&heard)
	if lease := a.held.Load(); lease != nil {
		heard(lease)
	}
}

func (a *Agent) heard(lease *coordinationv1.Lease) {
	if heard := a.onLease.Load(); heard != nil {
		(*heard)(lease)
	}
}

// Ready returns what keeps the agent from working; nil: nothing does.
func (a *Agent) Ready() error { return a.status.ready() }
