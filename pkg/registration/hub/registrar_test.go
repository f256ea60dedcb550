package hub

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// fixture is a hub with its caches running, no controller, and a clock that
// stands: tests call Reconcile and move the clock.
type fixture struct {
	testkit.T
	scheme    *runtime.Scheme
	hub       cluster.Cluster
	client    client.Client
	registrar *Registrar
	clock     time.Time
	unjoined  bool // members get no credential by themselves
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: testkit.T{TB: t}, scheme: runtime.NewScheme(), clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	f.Must(clientgoscheme.AddToScheme(f.scheme))
	f.Must(v1alpha1.AddToScheme(f.scheme))
	var err error
	f.hub, err = cluster.New(envtestkit.Config(t), func(o *cluster.Options) {
		o.Scheme = f.scheme
		o.Cache.ByObject = CacheByObject()
	})
	f.Must(err)
	f.restart()
	testkit.Run(t, f.hub.Start)
	if !f.hub.GetCache().WaitForCacheSync(t.Context()) {
		t.Fatal("caches did not sync")
	}
	t.Cleanup(f.deleteMembers)
	return f
}

// restart makes a new Registrar, without any state. Its client knows nothing of earlier writes.
func (f *fixture) restart() {
	f.Helper()
	if f.registrar != nil {
		f.awaitCaches()
	}
	var err error
	f.registrar, err = NewRegistrar(f.hub, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
	f.Must(err)
	f.registrar.now = func() time.Time { return f.clock }
	f.client = f.registrar.client
}

func (f *fixture) deleteMembers() {
	var all v1alpha1.MemberClusterList
	f.Must(f.client.List(context.Background(), &all))
	for _, m := range all.Items {
		f.Must(client.IgnoreNotFound(f.client.Delete(context.Background(), &m)))
	}
}

func (f *fixture) member(name string, accepted bool, cidrs ...string) {
	f.Helper()
	defer f.join(name, accepted)
	f.Must(f.client.Create(f.Context(), &v1alpha1.MemberCluster{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.MemberClusterSpec{Accepted: accepted, Exports: v1alpha1.MemberExportRules{Namespaces: []v1alpha1.NamespacePattern{"*"}}, Region: "us", EndpointCIDRs: cidrs},
	}))
}

// join gives a member that is accepted a credential, unless a test is about that.
func (f *fixture) join(name string, accepted bool) {
	f.Helper()
	if accepted && !f.unjoined {
		testkit.Joined(f.TB, f.client, name)
	}
}

func (f *fixture) get(name string) *v1alpha1.MemberCluster {
	f.Helper()
	var m v1alpha1.MemberCluster
	f.Must(f.client.Get(f.Context(), types.NamespacedName{Name: name}, &m))
	return &m
}

func (f *fixture) accept(name string, accepted bool) {
	f.Helper()
	m := f.get(name)
	m.Spec.Accepted = accepted
	f.Must(f.client.Update(f.Context(), m))
	f.join(name, accepted)
}

// awaitCaches waits until all that was written is in the caches.
func (f *fixture) awaitCaches() {
	f.Helper()
	for _, l := range []client.ObjectList{&v1alpha1.MemberClusterList{}, &v1alpha1.MemberExportList{}, &discoveryv1.EndpointSliceList{},
		&corev1.NamespaceList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{}} {
		f.Must(f.client.List(f.Context(), l))
	}
}

// reconcile reconciles one member, after all that tests wrote is in the caches.
func (f *fixture) reconcile(name string) reconcile.Result {
	f.Helper()
	f.awaitCaches()
	result, err := f.registrar.Reconcile(f.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	f.Must(err)
	return result
}

// renew writes the member's Lease as its agent does, now.
func (f *fixture) renew(name string) {
	f.Helper()
	f.renewAt(name, f.clock)
}

// renewAt is renew by an agent whose clock says another time.
func (f *fixture) renewAt(name string, at time.Time) {
	f.Helper()
	now := metav1.NewMicroTime(at)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + name, Name: v1alpha1.AgentLease}}
	err := f.client.Get(f.Context(), client.ObjectKeyFromObject(lease), lease)
	lease.Spec.RenewTime = &now
	if apierrors.IsNotFound(err) {
		f.Must(f.client.Create(f.Context(), lease))
		return
	}
	f.Must(err)
	f.Must(f.client.Update(f.Context(), lease))
}

// wantStatus checks a member's conditions but Ready, which sums them up, each
// "Type=Status Reason".
func (f *fixture) wantStatus(name string, want ...string) {
	f.Helper()
	isReady := func(c string) bool { return strings.HasPrefix(c, condition.MemberReadyType+"=") }
	if got := slices.DeleteFunc(testkit.Conditions(f.get(name).Status.Conditions), isReady); !slices.Equal(got, want) {
		f.Errorf("%s has conditions %q, want %q", name, got, want)
	}
}

// agent is the hub as the member's agent sees it.
func (f *fixture) agent(name string) client.Client {
	f.Helper()
	c, err := client.New(envtestkit.As(f.TB, registration.MemberUser(fleet.ClusterName(name), testkit.CredentialID), v1alpha1.MembersGroup), client.Options{Scheme: f.scheme})
	f.Must(err)
	return c
}

// mayWrite asks as the agent until the API server's authorizer, which follows
// RBAC objects within milliseconds, answers as wanted.
func (f *fixture) mayWrite(name string, want bool) {
	f.Helper()
	agent := f.agent(name)
	var err error
	for range 500 {
		err = agent.List(f.Context(), &v1alpha1.MemberExportList{}, client.InNamespace("member-"+name))
		if (err == nil) == want {
			return
		}
	}
	f.Errorf("agent of %s in its namespace: %v, want access: %v", name, err, want)
}

// An accepted member gets its namespace and Role, and its agent may read where the
// member API is. A member whose acceptance is withdrawn loses its access and
// keeps its exports.
func TestAccept(t *testing.T) {
	f := newFixture(t)
	f.member("r-west", false, "10.1.0.0/16")
	f.reconcile("r-west")
	f.wantStatus("r-west", "ExportsAccepted=False NotJoined", "Joined=False NotAccepted", "Reachable=Unknown NotAccepted")
	if err := f.client.Get(t.Context(), types.NamespacedName{Name: "member-r-west"}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
		t.Error("a cluster that is not accepted has a namespace: ", err)
	}

	f.accept("r-west", true)
	f.reconcile("r-west")
	f.wantStatus("r-west", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=Unknown NeverHeard")
	f.mayWrite("r-west", true)
	if err := f.agent("r-west").Get(t.Context(), types.NamespacedName{Namespace: "member-r-west", Name: v1alpha1.MemberAPIConfigMap}, &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		t.Error("a member reads where the member API is: ", err)
	}
	if err := f.agent("r-west").List(t.Context(), &v1alpha1.FleetServiceList{}, client.InNamespace(v1alpha1.FleetNamespace)); !apierrors.IsForbidden(err) {
		t.Error("a member reads FleetServices: ", err)
	}
	export(f, "r-west", "web")

	f.accept("r-west", false)
	f.reconcile("r-west")
	f.wantStatus("r-west", "ExportsAccepted=False NotJoined", "Joined=False NotAccepted", "Reachable=Unknown NotAccepted")
	f.mayWrite("r-west", false)
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Namespace: "member-r-west", Name: "web.shop"}, &v1alpha1.MemberExport{}))

	f.accept("r-west", true)
	f.reconcile("r-west")
	f.mayWrite("r-west", true)
}

// A Role that somebody widened is restored.
func TestRoleIsRestored(t *testing.T) {
	f := newFixture(t)
	f.member("w-west", true, "10.1.0.0/16")
	f.reconcile("w-west")
	role := &rbacv1.Role{}
	key := types.NamespacedName{Namespace: "member-w-west", Name: registration.RoleName}
	f.Must(f.client.Get(t.Context(), key, role))
	role.Rules = []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}
	f.Must(f.client.Update(t.Context(), role))
	f.reconcile("w-west")
	f.Must(f.client.Get(t.Context(), key, role))
	if len(role.Rules) != len(registration.Objects("w-west", registration.Limits{}).Role.Rules) {
		t.Errorf("rules %+v", role.Rules)
	}
}

// A binding that somebody deleted, or gave other subjects or another Role, is made again.
func TestBindingIsRestored(t *testing.T) {
	f := newFixture(t)
	f.member("b-west", true, "10.1.0.0/16")
	f.reconcile("b-west")
	f.mayWrite("b-west", true)
	for _, namespace := range []string{"member-b-west"} {
		binding := &rbacv1.RoleBinding{}
		key := types.NamespacedName{Namespace: namespace, Name: registration.RoleName}
		f.Must(f.client.Get(t.Context(), key, binding))
		want := binding.DeepCopy()
		if requests := f.registrar.membersOfObject(t.Context(), binding); !slices.ContainsFunc(requests, func(r reconcile.Request) bool { return r.Name == "b-west" }) {
			t.Errorf("a binding in %s brings %v", namespace, requests)
		}
		for name, change := range map[string]func() error{
			"deleted": func() error { return f.client.Delete(t.Context(), binding) },
			"other subjects": func() error {
				binding.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "somebody"}}
				return f.client.Update(t.Context(), binding)
			},
			"another Role": func() error {
				f.Must(f.client.Delete(t.Context(), binding))
				other := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: registration.RoleName}, RoleRef: want.RoleRef, Subjects: want.Subjects}
				other.RoleRef.Name = "other"
				return f.client.Create(t.Context(), other)
			},
		} {
			f.Must(change())
			f.reconcile("b-west")
			f.Must(f.client.Get(t.Context(), key, binding))
			if binding.RoleRef != want.RoleRef || !slices.Equal(binding.Subjects, want.Subjects) || binding.Labels[v1alpha1.LabelMember] != want.Labels[v1alpha1.LabelMember] {
				t.Errorf("%s in %s: %+v", name, namespace, binding)
			}
		}
	}
	f.mayWrite("b-west", true)
	requests := f.registrar.membersOfNamespace(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.FleetNamespace}})
	if !slices.ContainsFunc(requests, func(r reconcile.Request) bool { return r.Name == "b-west" }) {
		t.Errorf("the fleet's namespace goes: %v", requests)
	}
}

// countingClient counts the writes of objects.
type countingClient struct {
	client.Client
	writes int
}

func (c *countingClient) Create(ctx context.Context, o client.Object, options ...client.CreateOption) error {
	c.writes++
	return c.Client.Create(ctx, o, options...)
}

func (c *countingClient) Patch(ctx context.Context, o client.Object, patch client.Patch, options ...client.PatchOption) error {
	c.writes++
	return c.Client.Patch(ctx, o, patch, options...)
}

func (c *countingClient) Delete(ctx context.Context, o client.Object, options ...client.DeleteOption) error {
	c.writes++
	return c.Client.Delete(ctx, o, options...)
}

// Objects that are as they should be are not written, also after a restart.
func TestSecondReconcileWritesNothing(t *testing.T) {
	f := newFixture(t)
	f.member("n-west", true, "10.1.0.0/16")
	f.member("n-east", false, "10.2.0.0/16")
	f.reconcile("n-west")
	f.reconcile("n-east")
	f.restart()
	counted := &countingClient{Client: f.registrar.client}
	f.registrar.client = counted
	f.reconcile("n-west")
	f.reconcile("n-east")
	if counted.writes != 0 {
		t.Errorf("%d writes", counted.writes)
	}
}

// quotaController has counts written as soon as there is a quota.
type quotaController struct {
	client.Client
	used corev1.ResourceList
}

func (c *quotaController) Patch(ctx context.Context, o client.Object, patch client.Patch, options ...client.PatchOption) error {
	err := c.Client.Patch(ctx, o, patch, options...)
	quota, isQuota := o.(*corev1.ResourceQuota)
	if err != nil || !isQuota || c.used == nil {
		return err
	}
	counted := quota.DeepCopy()
	counted.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: c.used}
	return c.Client.Status().Update(ctx, counted)
}

// An API server refuses what a quota has not counted. Once a member may write, all of its
// quota is counted, whatever the quota controller has done by then.
func TestQuotaIsCountedBeforeAccess(t *testing.T) {
	for name, used := range map[string]corev1.ResourceList{
		"count-nothing": nil,
		"count-others":  {registration.CountOfSlices: resource.MustParse("7"), registration.CountOfLeases: resource.MustParse("1")},
	} {
		f := newFixture(t)
		f.registrar.client = &quotaController{Client: f.registrar.client, used: used}
		f.member(name, true, "10.1.0.0/16")
		f.reconcile(name)
		f.mayWrite(name, true)
		var quota corev1.ResourceQuota
		f.Must(f.client.Get(t.Context(), types.NamespacedName{Namespace: "member-" + name, Name: registration.RoleName}, &quota))
		for kind := range quota.Spec.Hard {
			got, counted := quota.Status.Used[kind]
			if want := used[kind]; !counted || !got.Equal(want) {
				t.Errorf("%s: %s has count %s (%t), want %s", name, kind, &got, counted, &want)
			}
		}
		if len(uncounted(&quota)) > 0 || len(quota.Status.Hard) != len(quota.Spec.Hard) {
			t.Errorf("%s: the status is %+v", name, quota.Status)
		}
	}
}

// A namespace that somebody else made is neither used nor deleted.
func TestNamespaceTaken(t *testing.T) {
	f := newFixture(t)
	theirs := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-taken"}}
	f.Must(f.client.Create(t.Context(), theirs))
	f.member("taken", true, "10.1.0.0/16")
	f.reconcile("taken")
	f.wantStatus("taken", "ExportsAccepted=False NotJoined", "Joined=False NamespaceTaken", "Reachable=Unknown NeverHeard")
	f.mayWrite("taken", false)

	f.Must(f.client.Delete(t.Context(), f.get("taken")))
	f.reconcile("taken")
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Name: "member-taken"}, theirs))
	if theirs.DeletionTimestamp != nil {
		t.Error("somebody's namespace was deleted")
	}

	theirs.Labels[v1alpha1.LabelMember] = "taken"
	f.Must(f.client.Update(t.Context(), theirs))
	f.member("taken", true, "10.1.0.0/16")
	f.reconcile("taken")
	f.wantStatus("taken", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=Unknown NeverHeard")
}

// A member that is deleted loses its namespace; one that comes back at once
// waits until that is gone.
func TestDeletedMember(t *testing.T) {
	f := newFixture(t)
	f.member("d-west", true, "10.1.0.0/16")
	f.reconcile("d-west")
	f.Must(f.client.Delete(t.Context(), f.get("d-west")))
	f.restart()
	f.reconcile("d-west")
	var namespace corev1.Namespace
	f.Must(f.client.Get(t.Context(), types.NamespacedName{Name: "member-d-west"}, &namespace))
	if namespace.DeletionTimestamp == nil {
		t.Error("the namespace of a member that is gone stays")
	}
	f.member("d-west", true, "10.1.0.0/16")
	f.reconcile("d-west")
	f.wantStatus("d-west", "ExportsAccepted=False NotJoined", "Joined=False NamespaceTerminating", "Reachable=Unknown NeverHeard")
}

// Numbers and times are written at most every 30 s, conditions at once.
func TestStatusInterval(t *testing.T) {
	f := newFixture(t)
	f.member("i-west", true, "10.1.0.0/16")
	f.reconcile("i-west")
	f.renew("i-west")
	f.reconcile("i-west")
	export(f, "i-west", "web")
	yes, no := true, false
	f.Must(f.client.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-i-west", Name: "web-1", Labels: map[string]string{
			v1alpha1.LabelServiceName: "web", v1alpha1.LabelServiceNamespace: "shop",
		}},
		AddressType: "IPv4",
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.1.0.1"}},
			{Addresses: []string{"10.1.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
			{Addresses: []string{"10.1.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
			{Addresses: []string{"10.9.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
		},
	}))
	f.clock = f.clock.Add(10 * time.Second)
	f.renew("i-west")
	before := f.get("i-west").ResourceVersion
	f.reconcile("i-west")
	if after := f.get("i-west").ResourceVersion; after != before {
		t.Error("numbers were written after 10 s")
	}
	f.clock = f.clock.Add(20 * time.Second)
	f.reconcile("i-west")
	if s := f.get("i-west").Status; s.Exports != 1 || s.Endpoints != 2 || !s.LastHeardTime.Time.Equal(f.clock.Add(-20*time.Second)) {
		t.Errorf("status %+v, want 1 export, 2 endpoints", s)
	}
}

// Ranges that overlap an older member's are refused with its name, exports with
// refused endpoints are named, and a member without ranges is reported.
func TestExportsAccepted(t *testing.T) {
	f := newFixture(t)
	f.member("x-west", true, "10.1.0.0/16")
	f.member("x-zone", true, "10.1.2.0/24") // as old to the second; its name is later
	f.member("x-none", true)
	for _, name := range []string{"x-west", "x-zone", "x-none"} {
		f.reconcile(name)
	}
	f.wantStatus("x-west", "ExportsAccepted=True Accepted", "Joined=True Accepted", "Reachable=Unknown NeverHeard")
	f.wantStatus("x-zone", "ExportsAccepted=False EndpointCIDRsRefused", "Joined=True Accepted", "Reachable=Unknown NeverHeard")
	f.wantStatus("x-none", "ExportsAccepted=False NoEndpointCIDRs", "Joined=True Accepted", "Reachable=Unknown NeverHeard")
	if c := meta.FindStatusCondition(f.get("x-zone").Status.Conditions, "ExportsAccepted"); !strings.Contains(c.Message, `MemberCluster "x-west"`) {
		t.Error(c.Message)
	}

	e := export(f, "x-west", "web")
	e.Status.Conditions = []metav1.Condition{{Type: "EndpointsAdmitted", Status: "False", Reason: "EndpointsRefused", LastTransitionTime: metav1.Now()}}
	f.Must(f.client.Status().Update(t.Context(), e))
	f.reconcile("x-west")
	f.wantStatus("x-west", "ExportsAccepted=False EndpointsRefused", "Joined=True Accepted", "Reachable=Unknown NeverHeard")

	member := f.get("x-west")
	member.Spec.Exports.Namespaces = []v1alpha1.NamespacePattern{"infra"}
	f.Must(f.client.Update(t.Context(), member))
	f.reconcile("x-west")
	f.wantStatus("x-west", "ExportsAccepted=False NamespacesNotAllowed", "Joined=True Accepted", "Reachable=Unknown NeverHeard")
	if c := meta.FindStatusCondition(f.get("x-west").Status.Conditions, "ExportsAccepted"); !strings.Contains(c.Message, `spec.exports.namespaces: [shop]`) {
		t.Error(c.Message)
	}
}

func export(f *fixture, member, service string) *v1alpha1.MemberExport {
	f.Helper()
	e := &v1alpha1.MemberExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "member-" + member, Name: service + ".shop"},
		Spec: v1alpha1.MemberExportSpec{
			Service: v1alpha1.ServiceReference{Namespace: "shop", Name: service}, ExportedAt: metav1.Now(),
			ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
		},
	}
	f.Must(f.client.Create(f.Context(), e))
	return e
}
