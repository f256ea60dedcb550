package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

func TestMain(m *testing.M) { envtestkit.MainWithControllers(m) }

// fixture is a hub, whose verdicts the test itself gives, and a cluster that joins it.
type fixture struct {
	testkit.T
	scheme *runtime.Scheme
	hub    client.WithWatch
	name   fleet.ClusterName
}

func newFixture(t *testing.T, name fleet.ClusterName) *fixture {
	t.Helper()
	f := &fixture{T: testkit.T{TB: t}, scheme: runtime.NewScheme(), name: name}
	f.Must(clientgoscheme.AddToScheme(f.scheme))
	f.Must(v1alpha1.AddToScheme(f.scheme))
	var err error
	f.hub, err = client.NewWithWatch(envtestkit.Config(t), client.Options{Scheme: f.scheme})
	f.Must(err)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "certificates"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"certificatesigningrequests"}, Verbs: []string{"create", "get"}},
	}}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "certificates"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "certificates"}}
	for _, group := range []string{v1alpha1.MembersGroup, "system:serviceaccounts:" + v1alpha1.MembersNamespace} {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group})
	}
	for _, o := range []client.Object{role, binding, namespaceNamed(v1alpha1.MembersNamespace), namespaceNamed(v1alpha1.MemberNamespace(name))} {
		f.Must(client.IgnoreAlreadyExists(f.hub.Create(t.Context(), o)))
	}
	t.Cleanup(f.forget)
	return f
}

// forget removes what the member left on the hub: the next run of the test is another joining.
func (f *fixture) forget() {
	in := client.InNamespace(v1alpha1.MemberNamespace(f.name))
	f.Must(f.hub.DeleteAllOf(context.Background(), &coordinationv1.Lease{}, in))
	f.Must(f.hub.DeleteAllOf(context.Background(), &v1alpha1.MemberExport{}, in))
	for _, r := range f.requests() {
		f.Must(f.hub.Delete(context.Background(), &r))
	}
}

func namespaceNamed(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// token makes a join account and a token of it.
func (f *fixture) token() string {
	f.Helper()
	config := envtestkit.Config(f.TB)
	account := registration.NewMemberJoinAccount(&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: string(f.name), UID: "1"}}, registration.NewCredentialID(), time.Now().Add(time.Hour))
	account.OwnerReferences = nil
	f.Must(f.hub.Create(f.Context(), account))
	text, err := registration.JoinToken{Server: config.Host, CA: config.CAData, Member: string(f.name), Token: f.tokenOf(account)}.Encode()
	f.Must(err)
	return text
}

func (f *fixture) tokenOf(account *corev1.ServiceAccount) string {
	f.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(3600))}}
	f.Must(f.hub.SubResource("token").Create(f.Context(), account, request))
	return request.Status.Token
}

// place is a cluster with an agent's namespace, of its own for each test.
type place struct {
	*fixture
	config    *rest.Config
	admin     client.Client
	namespace string
	leaves    func(Credential) error // what leaving does; nil: nothing
}

// in makes the namespace of an agent in a cluster, with the Secret that the chart makes.
func (f *fixture) in(config *rest.Config) *place {
	f.Helper()
	p := &place{fixture: f, config: config, namespace: "system-" + registration.NewCredentialID()}
	var err error
	p.admin, err = client.New(config, client.Options{Scheme: f.scheme})
	f.Must(err)
	f.Must(p.admin.Create(f.Context(), namespaceNamed(p.namespace)))
	p.secret(CredentialSecret, nil)
	return p
}

// secret writes a Secret of the agent.
func (p *place) secret(name string, data map[string][]byte) {
	p.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: name}, Data: data}
	if err := p.admin.Create(p.Context(), secret); err != nil {
		p.Must(p.admin.Update(p.Context(), secret))
	}
}

func (p *place) join(token string) {
	p.Helper()
	p.secret(JoinSecret, map[string][]byte{JoinTokenKey: []byte(token + "\n")})
}

// stored is the agent's Secret.
func (p *place) stored() *corev1.Secret {
	p.Helper()
	var secret corev1.Secret
	p.Must(p.admin.Get(p.Context(), client.ObjectKey{Namespace: p.namespace, Name: CredentialSecret}, &secret))
	return &secret
}

// running is an agent whose clock the test moves, and that ends by stop.
type running struct {
	*Agent
	p        *place
	mu       sync.Mutex
	ahead    time.Duration // guarded by mu
	works    chan struct{} // closed when it was elected and may work
	stop     func()
	stopOnce sync.Once
}

// start runs the agent as an elected replica does until its term begins.
func (p *place) start(pod string) *running {
	p.Helper()
	c, err := cluster.New(p.config, func(o *cluster.Options) { o.Scheme = p.scheme })
	p.Must(err)
	a, err := New(c, Options{Namespace: p.namespace, Pod: pod, UserAgent: "test", QPS: -1, Leave: func(_ context.Context, _ client.Client, c Credential) error {
		if p.leaves == nil {
			return nil
		}
		return p.leaves(c)
	}})
	p.Must(err)
	r := &running{Agent: a, p: p, works: make(chan struct{})}
	a.now = func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return time.Now().Add(r.ahead) }
	a.hubNow = a.now
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = c.Start(ctx) })
	all.Go(func() { _ = a.Start(ctx) })
	all.Go(func() {
		a.Elected(ctx)
		if ctx.Err() == nil {
			close(r.works)
		}
	})
	r.stop = func() { r.stopOnce.Do(func() { cancel(); all.Wait() }) }
	p.Cleanup(r.stop)
	return r
}

// moves moves the agent's clock, and what it takes for the hub's.
func (r *running) moves(by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead += by
}

// says waits until the agent has said something, in its Secret and so to its log.
func (r *running) says(words ...string) {
	r.p.Helper()
	testkit.EventuallySeen(r.p.TB, "the agent to say "+strings.Join(words, ", "), func() (bool, any) {
		said := r.p.stored().Annotations[AnnotationStatus]
		for _, w := range words {
			if !strings.Contains(said, w) {
				return false, said
			}
		}
		return true, said
	})
}

// requests are the CSRs of the member on the hub.
func (f *fixture) requests() []certificatesv1.CertificateSigningRequest {
	f.Helper()
	var list certificatesv1.CertificateSigningRequestList
	f.Must(f.hub.List(context.Background(), &list)) // also when the test ends
	var of []certificatesv1.CertificateSigningRequest
	for _, r := range list.Items {
		if strings.HasPrefix(r.Name, "crossway-"+string(f.name)+"-") {
			of = append(of, r)
		}
	}
	return of
}

// undecided waits for a request without a verdict.
func (f *fixture) undecided() *certificatesv1.CertificateSigningRequest {
	f.Helper()
	var found *certificatesv1.CertificateSigningRequest
	f.Eventually("a request", func() bool {
		for _, r := range f.requests() {
			if len(r.Status.Conditions) == 0 {
				found = &r
			}
		}
		return found != nil
	})
	return found
}

// decide gives the hub's verdict, and lets in whom it approves.
func (f *fixture) decide(r *certificatesv1.CertificateSigningRequest, verdict certificatesv1.RequestConditionType, reason, message string) {
	f.Helper()
	r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: verdict, Status: corev1.ConditionTrue, Reason: reason, Message: message})
	f.Must(f.hub.SubResource("approval").Update(f.Context(), r))
}

// letIn binds an agent's user, as the hub does for the credential in force.
func (f *fixture) letIn(user string) {
	f.Helper()
	o := registration.Objects(f.name, registration.Limits{})
	o.Binding.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
	f.Must(client.IgnoreAlreadyExists(f.hub.Create(f.Context(), &o.Role)))
	if err := f.hub.Create(f.Context(), &o.Binding); err != nil {
		f.Must(f.hub.Update(f.Context(), &o.Binding))
	}
}

// approve approves a request of an agent, and lets it in.
func (f *fixture) approve(r *certificatesv1.CertificateSigningRequest) {
	f.Helper()
	f.letIn(userIn(f, r))
	f.decide(r, certificatesv1.CertificateApproved, "Accepted", "let in")
}

// joined is a place with an agent that works.
func (f *fixture) joined() (*place, *running) {
	f.Helper()
	p := f.in(envtestkit.Other(f.TB))
	p.join(f.token())
	a := p.start("agent-0")
	f.approve(f.undecided())
	a.awaitWork()
	return p, a
}

func (r *running) awaitWork() {
	r.p.Helper()
	select {
	case <-r.works:
	case <-time.After(testkit.Timeout):
		r.p.Fatalf("the agent does not work: %v", r.Ready())
	}
}

func (f *fixture) lease() *coordinationv1.Lease {
	f.Helper()
	var lease coordinationv1.Lease
	f.Must(f.hub.Get(f.Context(), client.ObjectKey{Namespace: v1alpha1.MemberNamespace(f.name), Name: v1alpha1.AgentLease}, &lease))
	return &lease
}

func uidOf(f *fixture, config *rest.Config) string {
	f.Helper()
	c, err := client.New(config, client.Options{Scheme: f.scheme})
	f.Must(err)
	var system corev1.Namespace
	f.Must(c.Get(f.Context(), client.ObjectKey{Name: "kube-system"}, &system))
	return string(system.UID)
}

func (r *running) String() string { return fmt.Sprint(r.Ready()) }
