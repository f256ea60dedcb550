package registration

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"crossway.dev/crossway/api/v1alpha1"
)

var (
	joinTime   = time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)
	joinKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
)

const (
	idA, idB   = "aaaaaaaaaa", "bbbbbbbbbb"
	uidA, uidB = "11111111-aaaa", "22222222-bbbb"
)

// fleetMember is MemberCluster us-west.
func fleetMember(accepted bool) *v1alpha1.MemberCluster {
	return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west", UID: "member-1"}, Spec: v1alpha1.MemberClusterSpec{Accepted: accepted}}
}

// joined is a member with a credential.
func joined(id, uid string) *v1alpha1.MemberCluster {
	m := fleetMember(true)
	m.Status.Credential = &v1alpha1.MemberCredential{ID: id, ClusterUID: uid, Kind: v1alpha1.CredentialCertificate, IssuedTime: timeOf(joinTime)}
	return m
}

// tokenOf is a join account of a member.
func tokenOf(m *v1alpha1.MemberCluster, id string) *corev1.ServiceAccount {
	account := NewMemberJoinAccount(m, id, joinTime.Add(time.Hour))
	account.UID = "account-1"
	return account
}

// csrOf is a CSR as an agent with a join token makes it.
func csrOf(account *corev1.ServiceAccount, id, uid string) *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "crossway-us-west-" + id, CreationTimestamp: timeOf(joinTime), Annotations: map[string]string{
			v1alpha1.AnnotationClusterUID: uid, v1alpha1.AnnotationEndpointCIDRs: "10.1.0.0/16,fd00:1::/48", v1alpha1.AnnotationAgentTime: joinTime.Format(time.RFC3339)}},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeAPIServerClientSignerName, ExpirationSeconds: ptr.To[int32](86400),
			Usages:   []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
			Username: accountUserPrefix + account.Name, UID: string(account.UID),
			Request: requestFor(pkix.Name{CommonName: MemberUser("us-west", id), Organization: []string{v1alpha1.MembersGroup}}, nil, joinKey),
		},
	}
}

// renewalOf is a CSR by which a credential renews itself.
func renewalOf(id, uid string) *certificatesv1.CertificateSigningRequest {
	csr := csrOf(&corev1.ServiceAccount{}, id, uid)
	csr.Spec.Username, csr.Spec.UID = MemberUser("us-west", id), ""
	return csr
}

func requestFor(subject pkix.Name, change func(*x509.CertificateRequest), key crypto.Signer) []byte {
	template := &x509.CertificateRequest{Subject: subject}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// plan plans what becomes of requests, and returns one line for each and one for the status.
func plan(m *v1alpha1.MemberCluster, accounts []*corev1.ServiceAccount, now time.Time, csrs ...*certificatesv1.CertificateSigningRequest) []string {
	byName := map[string]*corev1.ServiceAccount{}
	for _, a := range accounts {
		byName[a.Name] = a
	}
	var requests []JoinRequest
	for _, csr := range csrs {
		if r, ok := ReadJoinRequest(csr); ok {
			requests = append(requests, r)
		}
	}
	p := PlanJoin(m, requests, byName, v1alpha1.CredentialCertificate, now, 20)
	var lines []string
	for _, v := range p.Verdicts {
		lines = append(lines, fmt.Sprintf("%s: %s", v.Request.Name, []string{"waits", "approved", "denied " + v.Condition.Reason}[v.Decision]))
	}
	if c := p.Credential; c != nil {
		lines = append(lines, "credential "+c.ID+" of "+c.ClusterUID)
	}
	if r := p.JoinRequest; r != nil {
		lines = append(lines, "asks: "+r.ID+" of "+r.ClusterUID)
	}
	return lines
}

func wantPlan(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

const nameA, nameB = "crossway-us-west-" + idA, "crossway-us-west-" + idB

// A cluster with a token waits until it is accepted, gets a credential, and renews it.
func TestJoin(t *testing.T) {
	m := fleetMember(false)
	token := tokenOf(m, "tttttttttt")
	csr := csrOf(token, idA, uidA)
	accounts := []*corev1.ServiceAccount{token}
	wantPlan(t, "not accepted", plan(m, accounts, joinTime, csr), nameA+": waits", "asks: "+idA+" of "+uidA)
	r, _ := ReadJoinRequest(csr)
	if asks := r.asks(); !slices.Equal(asks.EndpointCIDRs, []string{"10.1.0.0/16", "fd00:1::/48"}) || asks.CSR != nameA {
		t.Errorf("%+v", asks)
	}
	m.Spec.Accepted = true
	wantPlan(t, "accepted", plan(m, accounts, joinTime, csr), nameA+": approved", "credential "+idA+" of "+uidA)
	wantPlan(t, "a renewal", plan(joined(idA, uidA), nil, joinTime, renewalOf(idA, uidA)), nameA+": approved", "credential "+idA+" of "+uidA)
	late := renewalOf(idA, uidA)
	late.Annotations[v1alpha1.AnnotationAgentTime] = joinTime.Add(-24 * time.Hour).Format(time.RFC3339)
	wantPlan(t, "a renewal by a cluster whose clock is wrong", plan(joined(idA, uidA), nil, joinTime, late), nameA+": approved", "credential "+idA+" of "+uidA)
	wantPlan(t, "the same cluster with a new token", plan(joined(idA, uidA), accounts, joinTime, csrOf(token, idB, uidA)), nameB+": approved", "credential "+idB+" of "+uidA)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	csr.Spec.Request = requestFor(pkix.Name{CommonName: MemberUser("us-west", idA), Organization: []string{v1alpha1.MembersGroup}}, nil, rsaKey)
	wantPlan(t, "an RSA key", plan(m, accounts, joinTime, csr), nameA+": approved", "credential "+idA+" of "+uidA)
}

// A credential ends with its acceptance, by its ID, and with its MemberCluster; whoever
// has it gets no other.
func TestCredentialEnds(t *testing.T) {
	revoked := joined(idA, uidA)
	revoked.Spec.RevokedCredentials = []string{idA}
	wantPlan(t, "revoked, and accepted", plan(revoked, nil, joinTime, renewalOf(idA, uidA)), nameA+": denied Revoked")
	out := joined(idA, uidA)
	out.Spec.Accepted = false
	wantPlan(t, "no longer accepted", plan(out, nil, joinTime, renewalOf(idA, uidA)), nameA+": denied NotInForce")
	wantPlan(t, "accepted again", plan(fleetMember(true), nil, joinTime, renewalOf(idA, uidA)), nameA+": denied NotInForce")
	wantPlan(t, "replaced", plan(joined(idB, uidA), nil, joinTime, renewalOf(idA, uidA)), nameA+": denied NotInForce", "credential "+idB+" of "+uidA)
	wantPlan(t, "deleted", plan(nil, nil, joinTime, renewalOf(idA, uidA)), nameA+": denied NoMemberCluster")
	gone := joined(idA, uidA)
	gone.DeletionTimestamp = &metav1.Time{Time: joinTime}
	wantPlan(t, "being deleted", plan(gone, nil, joinTime, renewalOf(idA, uidA)), nameA+": denied NoMemberCluster")
	wantPlan(t, "a clone of the cluster", plan(joined(idA, uidA), nil, joinTime, renewalOf(idA, uidB)), nameA+": denied NameTaken", "credential "+idA+" of "+uidA)
	other := renewalOf(idB, uidA)
	other.Spec.Username = MemberUser("us-west", idA)
	wantPlan(t, "a renewal under another ID", plan(joined(idA, uidA), nil, joinTime, other), nameB+": denied Malformed", "credential "+idA+" of "+uidA)
	other.Spec.Username = MemberUser("us-west", "cccccccccc")
	wantPlan(t, "somebody else's ID", plan(joined(idB, uidA), nil, joinTime, other), nameB+": denied NotInForce", "credential "+idB+" of "+uidA)
}

// A token is for one cluster: the first that comes.
func TestTokenIsUsedOnce(t *testing.T) {
	m := fleetMember(true)
	token := tokenOf(m, "tttttttttt")
	used := token.DeepCopy()
	used.Annotations[v1alpha1.AnnotationClusterUID], used.Annotations[v1alpha1.AnnotationCredential] = uidA, idA
	accounts := []*corev1.ServiceAccount{used}
	wantPlan(t, "another cluster", plan(m, accounts, joinTime, csrOf(token, idB, uidB)), nameB+": denied TokenUsed")
	wantPlan(t, "another one that says it is the same", plan(m, accounts, joinTime, csrOf(token, idB, uidA)), nameB+": denied TokenUsed")
	wantPlan(t, "another one that knows the ID", plan(m, accounts, joinTime, csrOf(token, idA, uidB)), nameA+": denied TokenUsed")
	wantPlan(t, "the same again", plan(m, accounts, joinTime, csrOf(token, idA, uidA)), nameA+": approved", "credential "+idA+" of "+uidA)

	first, second := csrOf(token, idB, uidB), csrOf(token, idA, uidA)
	second.CreationTimestamp = timeOf(joinTime.Add(time.Second))
	accounts = []*corev1.ServiceAccount{token}
	wantPlan(t, "two at once", plan(m, accounts, joinTime, second, first), nameB+": approved", nameA+": denied TokenUsed", "credential "+idB+" of "+uidB)
	wantPlan(t, "two at once that say they are the same", plan(m, accounts, joinTime, second, csrOf(token, idB, uidA)), nameB+": approved", nameA+": denied TokenUsed", "credential "+idB+" of "+uidA)
	m.Spec.Accepted = false
	wantPlan(t, "two that wait", plan(m, accounts, joinTime, second, first), nameB+": waits", nameA+": denied TokenUsed", "asks: "+idB+" of "+uidB)
	r, _ := ReadJoinRequest(second)
	m.Status.JoinRequest = r.asks()
	wantPlan(t, "who was shown to the admin comes first", plan(m, accounts, joinTime, first, second), nameA+": waits", nameB+": denied TokenUsed", "asks: "+idA+" of "+uidA)
	m.Spec.Accepted = true
	wantPlan(t, "and is who was accepted", plan(m, accounts, joinTime, first, second), nameA+": approved", nameB+": denied TokenUsed", "credential "+idA+" of "+uidA)
	token2 := NewMemberJoinAccount(m, "uuuuuuuuuu", joinTime.Add(time.Hour))
	token2.UID = "account-1"
	m.Spec.Accepted = false
	wantPlan(t, "another token", plan(m, []*corev1.ServiceAccount{token, token2}, joinTime, second, csrOf(token2, idB, uidB)),
		nameA+": waits", nameB+": denied AnotherWaits", "asks: "+idA+" of "+uidA)
	m.Spec.Accepted = true

	wantPlan(t, "ended", plan(m, accounts, joinTime.Add(time.Hour), first), nameB+": denied TokenEnded")
	wantPlan(t, "deleted", plan(m, nil, joinTime, first), nameB+": denied TokenEnded")
	again := token.DeepCopy()
	again.UID = "account-2"
	wantPlan(t, "made again", plan(m, []*corev1.ServiceAccount{again}, joinTime, first), nameB+": denied TokenEnded")
	other := fleetMember(true)
	other.UID = "member-2"
	wantPlan(t, "of an earlier MemberCluster", plan(other, accounts, joinTime, first), nameB+": denied TokenEnded")
	wantPlan(t, "another cluster has the name", plan(joined(idA, uidA), accounts, joinTime, first), nameB+": denied NameTaken", "credential "+idA+" of "+uidA)
	taken := joined(idA, uidA)
	taken.Spec.RevokedCredentials = []string{idA}
	wantPlan(t, "another cluster had the name", plan(taken, accounts, joinTime, first), nameB+": approved", "credential "+idB+" of "+uidB)
	m.Spec.RevokedCredentials = []string{idB}
	wantPlan(t, "refused while it waited", plan(m, accounts, joinTime, first), nameB+": denied Revoked")
	for _, off := range []time.Duration{6 * time.Minute, -6 * time.Minute} {
		first.Annotations[v1alpha1.AnnotationAgentTime] = joinTime.Add(off).Format(time.RFC3339)
		m.Spec.RevokedCredentials = nil
		wantPlan(t, "a clock that is wrong", plan(m, accounts, joinTime, first), nameB+": denied ClockDiffers")
	}
}

// Who is told the UID of another cluster cannot ask with that next: the token is used.
func TestTokenThatWasToldAUID(t *testing.T) {
	m := joined(idA, uidA)
	token := tokenOf(m, "tttttttttt")
	first, second := csrOf(token, idB, uidB), csrOf(token, "cccccccccc", uidA)
	second.CreationTimestamp = timeOf(joinTime.Add(time.Second))
	accounts := []*corev1.ServiceAccount{token}
	wantPlan(t, "of the member", plan(m, accounts, joinTime, first, second), nameB+": denied NameTaken", second.Name+": denied TokenUsed", "credential "+idA+" of "+uidA)

	waits := tokenOf(m, "uuuuuuuuuu")
	m = fleetMember(false)
	wantPlan(t, "of who waits", plan(m, append(accounts, waits), joinTime, csrOf(waits, idA, uidA), first, second),
		nameA+": waits", nameB+": denied AnotherWaits", second.Name+": denied TokenUsed", "asks: "+idA+" of "+uidA)
}

// Whatever else a join account or a credential asks for is denied.
func TestHostileRequests(t *testing.T) {
	m := fleetMember(true)
	token := tokenOf(m, "tttttttttt")
	good := pkix.Name{CommonName: MemberUser("us-west", idA), Organization: []string{v1alpha1.MembersGroup}}
	subject := func(change func(*pkix.Name)) func(*certificatesv1.CertificateSigningRequest) {
		return func(csr *certificatesv1.CertificateSigningRequest) {
			s := good
			change(&s)
			csr.Spec.Request = requestFor(s, nil, joinKey)
		}
	}
	extension := func(change func(*x509.CertificateRequest)) func(*certificatesv1.CertificateSigningRequest) {
		return func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Request = requestFor(good, change, joinKey)
		}
	}
	annotation := func(key, value string) func(*certificatesv1.CertificateSigningRequest) {
		return func(csr *certificatesv1.CertificateSigningRequest) { csr.Annotations[key] = value }
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*certificatesv1.CertificateSigningRequest){
		"another member":          subject(func(n *pkix.Name) { n.CommonName = MemberUser("us-east", idA) }),
		"no ID":                   subject(func(n *pkix.Name) { n.CommonName = "crossway:member:us-west" }),
		"an administrator":        subject(func(n *pkix.Name) { n.CommonName = "kubernetes-admin" }),
		"the account of a member": subject(func(n *pkix.Name) { n.CommonName = accountUserPrefix + MemberAccount("us-west", idA) }),
		"system:masters":          subject(func(n *pkix.Name) { n.Organization = []string{"system:masters"} }),
		"system:masters, too":     subject(func(n *pkix.Name) { n.Organization = append(n.Organization, "system:masters") }),
		"no group":                subject(func(n *pkix.Name) { n.Organization = nil }),
		"an organizational unit":  subject(func(n *pkix.Name) { n.OrganizationalUnit = []string{"x"} }),
		"two common names": subject(func(n *pkix.Name) {
			n.ExtraNames = []pkix.AttributeTypeAndValue{{Type: []int{2, 5, 4, 3}, Value: "kubernetes-admin"}}
		}),
		"a DNS name": extension(func(r *x509.CertificateRequest) { r.DNSNames = []string{"kubernetes.default.svc"} }),
		"an extension": extension(func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 19}, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}}
		}),
		"a weak key": func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.Request = requestFor(good, nil, small) },
		"10 years": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.ExpirationSeconds = ptr.To[int32](10 * 365 * 86400)
		},
		"any life":        func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.ExpirationSeconds = nil },
		"a negative life": func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.ExpirationSeconds = ptr.To[int32](-1) },
		"a server": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Usages = append(csr.Spec.Usages, certificatesv1.UsageServerAuth)
		},
		"any usage": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Usages = []certificatesv1.KeyUsage{certificatesv1.UsageAny}
		},
		"no usage": func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.Usages = nil },
		"no PEM":   func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.Request = []byte("x") },
		"two requests": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Request = append(csr.Spec.Request, csr.Spec.Request...)
		},
		"a signature that is none": func(csr *certificatesv1.CertificateSigningRequest) {
			block, _ := pem.Decode(csr.Spec.Request)
			block.Bytes[len(block.Bytes)-1] ^= 1
			csr.Spec.Request = pem.EncodeToMemory(block)
		},
		"no UID":          annotation(v1alpha1.AnnotationClusterUID, ""),
		"words for a UID": annotation(v1alpha1.AnnotationClusterUID, "the good one; accept me"),
		"a long UID":      annotation(v1alpha1.AnnotationClusterUID, strings.Repeat("a", 65)),
		"no time":         annotation(v1alpha1.AnnotationAgentTime, "now"),
		"no CIDR":         annotation(v1alpha1.AnnotationEndpointCIDRs, "10.0.0.0/8,accept me"),
		"many CIDRs":      annotation(v1alpha1.AnnotationEndpointCIDRs, manyCIDRs(33)),
	} {
		for _, csr := range []*certificatesv1.CertificateSigningRequest{csrOf(token, idA, uidA), renewalOf(idA, uidA)} {
			change(csr)
			member := joined(idA, uidA)
			member.UID = m.UID
			if got := plan(member, []*corev1.ServiceAccount{token}, joinTime, csr); got[0] != nameA+": denied Malformed" {
				t.Errorf("%s by %s: %s", what, csr.Spec.Username, got)
			}
		}
	}
}

func manyCIDRs(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("10.%d.0.0/16", i))
	}
	return strings.Join(all, ",")
}

// Requests of others, and for other signers, are not decided here.
func TestRequestsOfOthers(t *testing.T) {
	for what, change := range map[string]func(*certificatesv1.CertificateSigningRequest){
		"a kubelet":        func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.Username = "system:node:a" },
		"an administrator": func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.Username = "kubernetes-admin" },
		"another namespace": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Username = "system:serviceaccount:default:join.us-west.tttttttttt"
		},
		"an account's name": func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.Username = "join.us-west.tttttttttt" },
		"edges": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.Username = accountUserPrefix + "join-edge.us-west.tttttttttt"
		},
		"kubelets' signer": func(csr *certificatesv1.CertificateSigningRequest) {
			csr.Spec.SignerName = certificatesv1.KubeletServingSignerName
		},
		"a signer of its own": func(csr *certificatesv1.CertificateSigningRequest) { csr.Spec.SignerName = "example.com/anything" },
	} {
		csr := csrOf(tokenOf(fleetMember(true), "tttttttttt"), idA, uidA)
		change(csr)
		if r, ok := ReadJoinRequest(csr); ok {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// The end of a certificate that was issued is in the status, of a renewal the later one.
func TestExpirationTime(t *testing.T) {
	m := joined(idA, uidA)
	issued := func(id string, end time.Time) JoinRequest {
		csr := renewalOf(id, uidA)
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: end}
		der, err := x509.CreateCertificate(rand.Reader, template, template, joinKey.Public(), joinKey)
		if err != nil {
			t.Fatal(err)
		}
		csr.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
		r, _ := ReadJoinRequest(csr)
		return r
	}
	requests := []JoinRequest{issued(idA, joinTime.Add(2*time.Hour)), issued(idA, joinTime.Add(time.Hour)), issued(idB, joinTime.Add(9*time.Hour))}
	p := PlanJoin(m, requests, nil, v1alpha1.CredentialCertificate, joinTime, 20)
	if end := p.Credential.ExpirationTime; len(p.Verdicts) != 0 || end == nil || !end.Time.Equal(joinTime.Add(2*time.Hour)) {
		t.Errorf("%+v", p.Credential)
	}
	if m.Status.Credential.ExpirationTime != nil {
		t.Error("the input was changed")
	}
	m.Status.Credential = p.Credential
	again := PlanJoin(m, append(requests, issued(idA, joinTime.Add(2*time.Hour+time.Second))), nil, v1alpha1.CredentialCertificate, joinTime, 20)
	if end := again.Credential.ExpirationTime; !end.Time.Equal(joinTime.Add(2 * time.Hour)) {
		t.Errorf("a renewal a second later changes the status: %v", end)
	}
}

// A flood of requests keeps the member's own renewal from nothing, and what is too much is deleted.
func TestFloodOfRequests(t *testing.T) {
	m := joined(idA, uidA)
	var requests []JoinRequest
	for i := range 200 {
		r, _ := ReadJoinRequest(renewalOf(idB, uidB))
		r.Name, r.Created = fmt.Sprintf("flood-%03d", i), joinTime.Add(-time.Hour)
		requests = append(requests, r)
	}
	token := tokenOf(m, "tttttttttt")
	joins, _ := ReadJoinRequest(csrOf(token, "cccccccccc", uidA))
	p := PlanJoin(m, append([]JoinRequest{joins}, requests...), map[string]*corev1.ServiceAccount{token.Name: token}, v1alpha1.CredentialCertificate, joinTime, 20)
	if p.Verdicts[0].Request.Name != joins.Name || p.Verdicts[0].Decision != JoinApproved {
		t.Errorf("who joins anew waits for a flood of a former credential: %+v", p.Verdicts[0])
	}
	own, _ := ReadJoinRequest(renewalOf(idA, uidA))
	requests = append(requests, own)
	p = PlanJoin(m, requests, nil, v1alpha1.CredentialCertificate, joinTime, 20)
	if len(p.Verdicts) != 20 || p.Verdicts[0].Request.Name != own.Name || p.Verdicts[0].Decision != JoinApproved {
		t.Errorf("%d verdicts, first %+v", len(p.Verdicts), p.Verdicts[0])
	}
	if names := SuperfluousRequests(requests, m, joinTime); len(names) != len(requests)-MaxUndecided || slices.Contains(names, own.Name) {
		t.Errorf("%d are deleted: %v", len(names), names)
	}
	for i := range requests {
		requests[i].Decided, requests[i].Denied, requests[i].DecidedAt = true, i < 200, joinTime.Add(-time.Minute)
	}
	if names := SuperfluousRequests(requests, m, joinTime); len(names) != 190 || slices.Contains(names, own.Name) {
		t.Errorf("%d decided ones are deleted: %v", len(names), names)
	}
	if names := SuperfluousRequests(requests, m, joinTime.Add(time.Hour)); len(names) != len(requests) {
		t.Errorf("%d old ones are deleted", len(names))
	}
}

// Many requests that wait for an admin keep none behind them from its turn, and none is
// left over to be looked at again at once.
func TestFloodOfWaitingRequests(t *testing.T) {
	m := fleetMember(false)
	first, second := tokenOf(m, "tttttttttt"), tokenOf(m, "uuuuuuuuuu")
	var requests []JoinRequest
	for i := range 30 {
		r, _ := ReadJoinRequest(csrOf(first, idA, uidA))
		r.Name, r.Created = fmt.Sprintf("flood-%03d", i), joinTime.Add(-time.Minute)
		requests = append(requests, r)
	}
	last, _ := ReadJoinRequest(csrOf(second, idB, uidB))
	requests = append(requests, last)
	p := PlanJoin(m, requests, map[string]*corev1.ServiceAccount{first.Name: first, second.Name: second}, v1alpha1.CredentialCertificate, joinTime, 20)
	if len(p.Verdicts) != len(requests) || p.Verdicts[30].Request.Name != last.Name || p.Verdicts[30].Decision != JoinDenied {
		t.Errorf("%d verdicts about %d requests", len(p.Verdicts), len(requests))
	}
}

// A join account goes when its token ends, with its MemberCluster, and when its credential is used.
func TestAccountEnded(t *testing.T) {
	m := joined(idA, uidA)
	token := tokenOf(m, "tttttttttt")
	used := token.DeepCopy()
	used.Annotations[v1alpha1.AnnotationClusterUID], used.Annotations[v1alpha1.AnnotationCredential] = uidA, idA
	revoked := joined(idA, uidA)
	revoked.Spec.RevokedCredentials = []string{idA}
	endless := token.DeepCopy()
	delete(endless.Annotations, v1alpha1.AnnotationTokenEnds)
	other := fleetMember(true)
	other.UID = "member-2"
	for what, c := range map[string]struct {
		account *corev1.ServiceAccount
		member  *v1alpha1.MemberCluster
		used    string
		now     time.Time
		ended   bool
	}{
		"new":                       {token, m, "", joinTime, false},
		"its token ended":           {token, m, "", joinTime.Add(time.Hour), true},
		"it names no end":           {endless, m, "", joinTime, true},
		"no MemberCluster":          {token, nil, "", joinTime, true},
		"another MemberCluster":     {token, other, "", joinTime, true},
		"given out, not yet used":   {used, m, "", joinTime, false},
		"the old one is still used": {used, m, idB, joinTime, false},
		"used":                      {used, m, idA, joinTime, true},
		"revoked":                   {used, revoked, "", joinTime, true},
	} {
		if got := AccountEnded(c.account, c.member, c.used, c.now); got != c.ended {
			t.Errorf("%s: ended is %v", what, got)
		}
	}
}
