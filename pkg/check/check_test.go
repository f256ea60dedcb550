package check_test

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/check"
	"crossway.dev/crossway/pkg/registration"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const uid = "0c3c1f9e-7a44-4f6a-9d0e-3b1f2a5c7d11"

func crd(name, versionName, description, bundle string) apiextensionsv1.CustomResourceDefinition {
	c := apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if bundle != "" {
		c.Annotations = map[string]string{"gateway.networking.k8s.io/bundle-version": bundle}
	}
	c.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: versionName, Served: true,
		Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Description: description}}}}
	return c
}

func conditions(statuses ...string) (out []metav1.Condition) {
	for _, s := range statuses {
		kind, status, _ := strings.Cut(s, "=")
		out = append(out, metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: "Reason", Message: "what the hub says"})
	}
	return out
}

// well are the facts of a fleet in which nothing is wrong: hub, us-west and pool us.
func well(t *testing.T) *check.Facts {
	t.Helper()
	ca, err := registration.NewEdgeCA(now, rand.Reader)
	testkit.Must(t, err)
	server, err := registration.NewServerCertificate(registration.Issuer{CA: ca, Now: now, Random: rand.Reader}, []string{"hub"})
	testkit.Must(t, err)
	replicas, err := registration.NewHubReplicaCertificate(registration.Issuer{CA: ca, Now: now, Random: rand.Reader})
	testkit.Must(t, err)
	gossip, err := registration.NextMemberCA(registration.CA{}, now, rand.Reader)
	testkit.Must(t, err)
	lease := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("crossway-hub-a"), LeaseDurationSeconds: ptr.To(int32(15)),
		RenewTime: &metav1.MicroTime{Time: now.Add(-2 * time.Second)}}}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/version": "1.0.0"}}}
	d.Spec.Replicas, d.Status.ReadyReplicas = ptr.To(int32(2)), 2
	d.Spec.Template.Spec.Containers = []corev1.Container{{Args: []string{"--member-api-url=https://hub:18001", "--hub-cidrs=10.10.0.0/16,10.110.0.0/16"}}}
	gateways, members := crd("gateways", "v1", "", "v1.6.3"), crd("members", "v1alpha1", "as it is", "")
	m := v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west", CreationTimestamp: metav1.NewTime(now)}}
	m.Spec = v1alpha1.MemberClusterSpec{Region: "us", Accepted: true, EndpointCIDRs: []string{"10.1.0.0/16"}}
	m.Status = v1alpha1.MemberClusterStatus{Exports: 1, Endpoints: 3, Conditions: conditions("Joined=True", "Reachable=True", "ExportsAccepted=True"),
		Credential: &v1alpha1.MemberCredential{ID: "abcdefghij", ClusterUID: uid, ExpirationTime: &metav1.Time{Time: now.Add(20 * time.Hour)}}}
	p := v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"}}
	p.Status = v1alpha1.EdgePoolStatus{Edges: 2, Conditions: conditions("Ready=True"),
		Credentials: []v1alpha1.EdgeCredential{{ID: "klmnopqrst", Edges: 2, ExpirationTime: metav1.NewTime(now.Add(20 * 24 * time.Hour))}}}
	return &check.Facts{
		Now: now, Local: now, Version: "1.0.0", Namespace: "crossway-system", Deployment: d, Lease: lease,
		Sets: []check.CRDs{{Title: "CRDs of the Gateway API", Want: []apiextensionsv1.CustomResourceDefinition{gateways}},
			{Title: "CRDs of Crossway", Want: []apiextensionsv1.CustomResourceDefinition{members}, Own: true}},
		CRDs: map[string]*apiextensionsv1.CustomResourceDefinition{"gateways": gateways.DeepCopy(), "members": members.DeepCopy()},
		Secrets: map[string]*corev1.Secret{
			registration.EdgeCASecret:   {Data: map[string][]byte{"tls.crt": ca.Certificate, "tls.key": ca.Key}},
			registration.XDSSecret:      {Data: map[string][]byte{"tls.crt": server.Certificate, "tls.key": server.Key, "ca.crt": ca.Certificate}},
			registration.ReplicaSecret:  {Data: map[string][]byte{"tls.crt": replicas.Certificate, "tls.key": replicas.Key, "ca.crt": ca.Certificate}},
			registration.MemberCASecret: {Data: gossip.CA.Data()},
		},
		Members: []check.Member{{MemberCluster: m}}, Pools: []v1alpha1.EdgePool{p},
		Unread: map[string]string{},
	}
}

// describe is a finding in one line.
func describe(f check.Finding) string {
	text := string(f.Level) + " " + f.What + ": " + f.Message
	if f.Do != "" {
		text += " -> " + f.Do
	}
	return text
}

// Of a fleet that is well, every line says ok.
func TestAllIsWell(t *testing.T) {
	var got []string
	for _, f := range check.Findings(*well(t)) {
		got = append(got, describe(f))
	}
	want := []string{
		"ok Deployment crossway-system/crossway-hub: 2 of 2 replicas are ready",
		"ok member API: announced as https://hub:18001",
		"ok replicas of the hub: hear each other",
		"ok Lease crossway-system/crossway-hub: crossway-hub-a leads",
		"ok CRDs of the Gateway API: 1 of 1 are there",
		"ok CRDs of Crossway: 1 of 1 are there",
		"ok edge CA (Secret crossway-edge-ca): ends 2036-02-27T12:00:00Z, in 3650 days",
		"ok xDS serving certificate (Secret crossway-xds): ends 2027-03-01T12:00:00Z, in 365 days",
		"ok certificate of the hub's replicas (Secret crossway-hub-replica): ends 2027-03-01T12:00:00Z, in 365 days",
		"ok CA of gossip (Secret crossway-member-ca): ends 2027-03-01T12:00:00Z, in 365 days",
		"ok MemberCluster us-west: region us, reachable, 1 export, 3 endpoints, certificate for 20h0m0s more",
		"ok EdgePool us: 2 edges connected",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Each thing that goes wrong is told, with what to do, and alone.
func TestWhatIsWrong(t *testing.T) {
	member := func(f *check.Facts) *v1alpha1.MemberCluster { return &f.Members[0].MemberCluster }
	for _, c := range []struct {
		what  string
		spoil func(*check.Facts)
		want  string
	}{
		{"another cluster than the hub", func(f *check.Facts) { f.Deployment = nil },
			"wrong Deployment crossway-system/crossway-hub: does not exist -> is --context the hub's? Else run crossway hub init"},
		{"a hub that does not get ready", func(f *check.Facts) { f.Deployment.Status.ReadyReplicas = 1 },
			"wrong Deployment crossway-system/crossway-hub: 1 of 2 replicas are ready -> kubectl"},
		{"a hub that was switched off", func(f *check.Facts) { f.Deployment.Spec.Replicas = ptr.To(int32(0)) },
			"wrong Deployment crossway-system/crossway-hub: is scaled to 0"},
		{"another version of the hub", func(f *check.Facts) { f.Version = "1.1.0" }, "warning Deployment crossway-system/crossway-hub: is version 1.0.0, this command 1.1.0"},
		{"a development build compares nothing", func(f *check.Facts) { f.Version = "(devel)" }, ""},
		{"no member API", func(f *check.Facts) { f.Deployment.Spec.Template.Spec.Containers[0].Args = nil }, "warning member API: the hub announces none"},
		{"a clock that is off", func(f *check.Facts) { f.Local = now.Add(-time.Hour) }, "warning clock of this machine: differs by 1h0m0s"},
		{"somebody who may not look", func(f *check.Facts) { f.Unread[check.UnreadDeployment] = "forbidden" },
			"warning Deployment crossway-system/crossway-hub: could not be read: forbidden"},

		{"a CRD is missing", func(f *check.Facts) { f.CRDs["gateways"] = nil }, "wrong CRDs of the Gateway API: missing: gateways -> run crossway hub init: it installs them"},
		{"a version is not served", func(f *check.Facts) { f.CRDs["gateways"].Spec.Versions[0].Name = "v1beta1" },
			"wrong CRDs of the Gateway API: too old: gateways (no v1) -> upgrade them with the tool that installed them"},
		{"an older Gateway API", func(f *check.Facts) {
			older := crd("gateways", "v1", "", "v1.5.1")
			f.CRDs["gateways"] = &older
		}, "warning CRDs of the Gateway API: version v1.5.1; Crossway is tested with v1.6.3"},
		{"own CRDs of another version", func(f *check.Facts) {
			other := crd("members", "v1alpha1", "as it was", "")
			f.CRDs["members"] = &other
		}, "wrong CRDs of Crossway: of another version: members -> run crossway hub init"},

		{"no CA", func(f *check.Facts) { delete(f.Secrets, registration.EdgeCASecret) }, "wrong edge CA (Secret crossway-edge-ca): does not exist -> restore it"},
		{"a CA that may not be read", func(f *check.Facts) {
			delete(f.Secrets, registration.EdgeCASecret)
			f.Unread[registration.EdgeCASecret] = "forbidden"
		}, "warning edge CA (Secret crossway-edge-ca): could not be read: forbidden"},
		{"no certificate in it", func(f *check.Facts) { f.Secrets[registration.EdgeCASecret].Data["tls.crt"] = nil },
			"wrong edge CA (Secret crossway-edge-ca): tls.crt holds no PEM certificate"},
		{"a CA near its end", func(f *check.Facts) { f.Now = now.Add(registration.EdgeCALife - 20*24*time.Hour); f.Local = f.Now },
			"warning edge CA (Secret crossway-edge-ca): ends 2036-02-27T12:00:00Z, in 20 days"},
		{"a serving certificate that ended", func(f *check.Facts) { f.Now = now.Add(registration.ServerLife + time.Hour); f.Local = f.Now },
			"wrong xDS serving certificate (Secret crossway-xds): ended 2027-03-01T12:00:00Z"},
		{"a serving certificate of another CA", func(f *check.Facts) {
			other, err := registration.NewEdgeCA(now, rand.Reader)
			testkit.Must(t, err)
			f.Secrets[registration.XDSSecret].Data["ca.crt"] = other.Certificate
		}, "wrong Secret crossway-xds: x509: certificate signed by unknown authority"},

		{"no certificate of replicas", func(f *check.Facts) { delete(f.Secrets, registration.ReplicaSecret) },
			"wrong certificate of the hub's replicas (Secret crossway-hub-replica): does not exist -> the leading replica of the hub makes it"},
		{"a certificate of replicas of another CA", func(f *check.Facts) {
			f.Secrets[registration.ReplicaSecret].Data["ca.crt"] = f.Secrets[registration.MemberCASecret].Data["tls.crt"]
		}, "wrong Secret crossway-hub-replica: x509: certificate signed by unknown authority"},
		{"a damaged CA of gossip", func(f *check.Facts) { f.Secrets[registration.MemberCASecret].Data["tls.key"] = []byte("damaged") },
			"wrong CA of gossip (Secret crossway-member-ca): tls: failed to find any PEM data in key input"},
		{"replicas that do not hear each other", func(f *check.Facts) { f.Deaf = []string{"crossway-hub-a hears 0 of 1 others"} },
			"wrong replicas of the hub: crossway-hub-a hears 0 of 1 others: shares may differ"},
		{"metrics that may not be read", func(f *check.Facts) { f.Unread[check.UnreadReplicas] = "forbidden" },
			"warning replicas of the hub: could not be read: forbidden -> reading their metrics wants role crossway-load-reader"},
		{"a hub that leads no more", func(f *check.Facts) { f.Lease.Spec.RenewTime.Time = now.Add(-time.Hour) },
			"wrong Lease crossway-system/crossway-hub: no replica leads since 2026-03-01T11:00:00Z: nothing"},
		{"a leader that stepped down", func(f *check.Facts) { f.Lease.Spec.HolderIdentity = ptr.To("") }, "wrong Lease crossway-system/crossway-hub: no replica leads"},
		{"a member as of a hub that is not there", func(f *check.Facts) { f.Lease.Spec.RenewTime.Time = now.Add(-time.Hour) },
			"warning MemberCluster us-west: no replica of the hub leads since 2026-03-01T11:00:00Z; before: region us, reachable"},
		{"edges as of a hub that is not there", func(f *check.Facts) { f.Lease = nil }, "warning EdgePool us: no replica of the hub leads; before: 2 edges"},
		{"a Lease that may not be read", func(f *check.Facts) { f.Lease, f.Unread[check.UnreadLease] = nil, "forbidden" },
			"warning Lease crossway-system/crossway-hub: could not be read: forbidden"},

		{"no member", func(f *check.Facts) { f.Members = nil }, "warning members: the fleet has none -> crossway token create"},
		{"a cluster that waits", func(f *check.Facts) {
			member(f).Spec.Accepted = false
			member(f).Status.JoinRequest = &v1alpha1.MemberJoinRequest{ClusterUID: uid, RequestedTime: metav1.NewTime(now)}
		}, "warning MemberCluster us-west: cluster " + uid + " has asked to join, 2026-03-01T12:00:00Z -> crossway accept us-west"},
		{"a member whose agent is silent", func(f *check.Facts) { member(f).Status.Conditions = conditions("Joined=True", "Reachable=False") },
			"wrong MemberCluster us-west: Reachable=False (Reason): what the hub says"},
		{"a member of whom the hub says nothing", func(f *check.Facts) { member(f).Status.Conditions = nil },
			"wrong MemberCluster us-west: is accepted, and the hub has not said anything"},
		{"a second cluster of that name", func(f *check.Facts) {
			member(f).Status.Conditions = append(member(f).Status.Conditions, conditions("IdentityConflict=True")...)
		}, "wrong MemberCluster us-west: IdentityConflict=True"},
		{"another clock", func(f *check.Facts) {
			member(f).Status.Conditions = append(member(f).Status.Conditions, conditions("ClockDiffers=True")...)
		}, "wrong MemberCluster us-west: ClockDiffers=True"},
		{"addresses of another member", func(f *check.Facts) {
			other := check.Member{MemberCluster: *member(f).DeepCopy()}
			other.Name, other.CreationTimestamp = "us-east", metav1.NewTime(now.Add(-time.Hour))
			other.Spec.EndpointCIDRs = []string{"10.1.4.0/22"}
			f.Members = append(f.Members, other)
		}, `wrong MemberCluster us-west: 10.1.0.0/16 overlaps 10.1.4.0/22 of MemberCluster "us-east", which is older -> correct spec.endpointCIDRs`},
		{"addresses of the hub", func(f *check.Facts) { member(f).Spec.EndpointCIDRs = []string{"10.10.4.0/22"} },
			"wrong MemberCluster us-west: 10.10.4.0/22 is in 10.10.0.0/16, which is the hub's own"},
		{"a credential that nobody renewed", func(f *check.Facts) { f.Now = now.Add(21 * time.Hour); f.Local = f.Now },
			"wrong MemberCluster us-west: its credential ended 2026-03-02T08:00:00Z"},
		{"a credential that ends soon", func(f *check.Facts) { f.Now = now.Add(19*time.Hour + 30*time.Minute); f.Local = f.Now },
			"warning MemberCluster us-west: its credential ends 2026-03-02T08:00:00Z, in 30m0s"},
		{"a member without a credential", func(f *check.Facts) { member(f).Status.Credential = nil },
			"wrong MemberCluster us-west: is accepted, and no cluster has joined"},
		{"an agent of another version", func(f *check.Facts) {
			f.Members[0].Lease = map[string]string{v1alpha1.AnnotationAgentVersion: "0.9.0"}
		}, "warning MemberCluster us-west: its agent is version 0.9.0, this command 1.0.0 -> upgrade its agent: crossway join --context <its context>"},

		{"no pool", func(f *check.Facts) { f.Pools = nil }, "warning edges: the fleet has no EdgePool"},
		{"no edge", func(f *check.Facts) {
			f.Pools[0].Status = v1alpha1.EdgePoolStatus{}
		}, "wrong EdgePool us: no edge is connected -> crossway token create --edge us"},
		{"edges that refuse their configuration", func(f *check.Facts) {
			f.Pools[0].Status.Conditions = conditions("Ready=True", "ConfigurationAccepted=False")
		}, "wrong EdgePool us: ConfigurationAccepted=False"},
		{"a credential of edges that ends", func(f *check.Facts) {
			f.Pools[0].Status.Credentials[0].ExpirationTime = metav1.NewTime(now.Add(24 * time.Hour))
		},
			"warning EdgePool us: credential klmnopqrst: certificate ends 2026-03-02T12:00:00Z, in 24h0m0s"},
		{"a revoked credential in use", func(f *check.Facts) { f.Pools[0].Spec.RevokedCredentials = []string{"klmnopqrst"} },
			"wrong EdgePool us: 2 edges connected with credential klmnopqrst, which is revoked"},
	} {
		f := well(t)
		c.spoil(f)
		var got []string
		for _, finding := range check.Findings(*f) {
			if finding.Level != check.OK {
				got = append(got, describe(finding))
			}
		}
		if c.want == "" {
			if len(got) > 0 {
				t.Errorf("%s: found %q", c.what, got)
			}
			continue
		}
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, c.want) }) {
			t.Errorf("%s: found\n  %s\nwant\n  %s", c.what, strings.Join(got, "\n  "), c.want)
		}
	}
}
