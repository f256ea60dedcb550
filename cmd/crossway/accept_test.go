package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

const (
	uid      = "0c3c1f9e-7a44-4f6a-9d0e-3b1f2a5c7d11"
	otherUID = "9f2d0a7b-1c55-4e0b-8a5d-6e4f3c2b1a00"
	newToken = "token create us-west --hub-server https://hub.example:6443"
)

// member creates a MemberCluster, which is gone after the test.
func (c *cluster) member(name string, spec v1alpha1.MemberClusterSpec) *v1alpha1.MemberCluster {
	c.t.Helper()
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	c.create(m)
	return m
}

func (c *cluster) get(name string) *v1alpha1.MemberCluster {
	c.t.Helper()
	var m v1alpha1.MemberCluster
	testkit.Must(c.t, c.Get(c.t.Context(), client.ObjectKey{Name: name}, &m))
	return &m
}

// hubSays writes the status of a MemberCluster, as the hub would.
func (c *cluster) hubSays(name string, say func(*v1alpha1.MemberClusterStatus)) {
	c.t.Helper()
	m := c.get(name)
	say(&m.Status)
	testkit.Must(c.t, c.Status().Update(c.t.Context(), m))
}

func conditionOf(kind string, status metav1.ConditionStatus, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: "Test", Message: message, LastTransitionTime: metav1.Now()}
}

func asks(uid string, cidrs ...string) func(*v1alpha1.MemberClusterStatus) {
	return func(s *v1alpha1.MemberClusterStatus) {
		s.JoinRequest = &v1alpha1.MemberJoinRequest{ID: "abcdefghij", ClusterUID: uid, EndpointCIDRs: cidrs, RequestedTime: metav1.Now(), CSR: "crossway-us-west-x"}
	}
}

func joins(uid string) func(*v1alpha1.MemberClusterStatus) {
	return func(s *v1alpha1.MemberClusterStatus) {
		s.JoinRequest = nil
		s.Credential = &v1alpha1.MemberCredential{ID: "abcdefghij", ClusterUID: uid, Kind: v1alpha1.CredentialCertificate, IssuedTime: metav1.Now()}
		for _, kind := range []string{"Joined", "Reachable"} {
			meta.SetStatusCondition(&s.Conditions, conditionOf(kind, metav1.ConditionTrue, "yes"))
		}
		meta.SetStatusCondition(&s.Conditions, conditionOf("ExportsAccepted", metav1.ConditionFalse, "spec.endpointCIDRs is empty"))
	}
}

func (c *cluster) membersNamespace() {
	c.t.Helper()
	err := c.Create(c.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MembersNamespace}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		c.t.Fatal(err)
	}
}

// A token makes the MemberCluster, not accepted, and an account of its own that ends.
func TestTokenForAMember(t *testing.T) {
	c := newHub(t)
	c.refused(2, "token create", "name either a member")
	c.refused(2, "token create us-west --edge us", "name either a member")
	c.refused(2, newToken+" --region us --ttl 1m", "--ttl 1m0s: use 10m0s to 24h0m0s")
	c.refused(2, "token create us-west --region us", "means this machine: name the one that other clusters reach with --hub-server")
	c.refused(2, "token create us-west --region us --hub-server hub.example", `"hub.example" is not the URL of an API server`)
	c.refused(2, newToken, `MemberCluster "us-west" does not exist yet: name its --region`)
	c.refused(1, "token create US --region us --hub-server https://hub.example", "RFC 1123")
	c.refused(1, newToken+" --region us --endpoint-cidr 10.1.0.0/33", "endpointCIDRs must be CIDRs like 10.1.0.0/16")
	c.membersNamespace()
	out := c.want(newToken+" --region us --zone us-a --endpoint-cidr 10.1.0.0/16 --export-namespace team-*",
		"crossway join --context <its context> --token ", "crossway accept us-west")
	t.Cleanup(func() {
		_ = c.Delete(context.Background(), &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west"}})
	})
	_, after, _ := strings.Cut(out, "--token ")
	text, _, _ := strings.Cut(after, "\n")
	token, err := registration.DecodeJoinToken(text)
	testkit.Must(t, err)
	if token.Member != "us-west" || token.Server != "https://hub.example:6443" || token.EdgePool != "" {
		t.Errorf("the token is for %+v", token)
	}
	m := c.get("us-west")
	if s := m.Spec; s.Accepted || s.Region != "us" || s.Zone != "us-a" || len(s.EndpointCIDRs) != 1 || len(s.Exports.Namespaces) != 1 {
		t.Errorf("made a MemberCluster of %+v", s)
	}
	var accounts corev1.ServiceAccountList
	testkit.Must(t, c.List(t.Context(), &accounts, client.InNamespace(v1alpha1.MembersNamespace), client.HasLabels{v1alpha1.LabelJoin}))
	if len(accounts.Items) != 1 || !registration.MadeFor(&accounts.Items[0], m) || time.Until(registration.TokenEnds(&accounts.Items[0])) > time.Hour {
		t.Errorf("made accounts %+v", accounts.Items)
	}
	c.refused(1, newToken+" --region eu", `MemberCluster "us-west" exists, in region "us" and zone "us-a"; leave out --region`)
	c.refused(1, newToken+" --endpoint-cidr 10.9.0.0/16", "give --endpoint-cidr and --export-namespace to crossway accept us-west")
	var result tokenResult
	testkit.Must(t, json.Unmarshal([]byte(c.want(newToken+" -o json")), &result))
	if again, err := registration.DecodeJoinToken(result.Token); err != nil || again.Token == token.Token || result.Member != "us-west" {
		t.Errorf("a second token is %+v, %v", result, err)
	}
}

func TestTokenForEdges(t *testing.T) {
	c := newHub(t)
	c.membersNamespace()
	const edge = "token create --hub-server https://hub.example:6443 --edge us"
	c.refused(2, edge, "--edge us needs --zone")
	c.refused(1, edge+" --zone us-a", `EdgePool "us" does not exist; create it with region`)
	c.create(&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"},
		Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}}})
	c.refused(2, edge+" --zone us-a --region us", "the region of edges is their EdgePool's")
	c.refused(2, edge+" --zone US_A", `zone "US_A" of an edge`)
	token, err := registration.DecodeJoinToken(strings.TrimSpace(c.want(edge + " --zone us-a -o jsonpath={.token}")))
	if err != nil || token.EdgePool != "us" || token.Zone != "us-a" || token.Member != "" {
		t.Errorf("the token is for %+v, %v", token, err)
	}
	c.want(edge+" --zone us-a", "crossway join --edge --context <its context> --hub-address <address of Service crossway-hub> --token ")
}

// Whoever accepts sees which cluster asks and what it proposes, and is refused what
// could only go wrong.
func TestAccept(t *testing.T) {
	c := newHub(t)
	c.refused(1, "accept us-west", `MemberCluster "us-west" does not exist: make a token for it with crossway token create us-west`)
	c.member("us-west", v1alpha1.MemberClusterSpec{Region: "us"})
	c.member("eu-west", v1alpha1.MemberClusterSpec{Region: "eu", Accepted: true, EndpointCIDRs: []string{"10.1.0.0/16"}})
	c.refused(1, "accept us-east", "or name one that exists (eu-west, us-west)")
	c.refused(1, "accept us-west --cluster-uid "+uid, "no cluster has asked to join")
	c.hubSays("us-west", asks(uid, "10.1.4.0/22"))
	c.refused(1, "accept us-west --cluster-uid "+otherUID, "cluster "+uid+` asks to join as "us-west", not `+otherUID)
	c.refused(1, "accept us-west", "10.1.4.0/22 overlaps 10.1.0.0/16 of MemberCluster")
	if c.get("us-west").Spec.Accepted {
		t.Fatal("what was refused is accepted")
	}
	c.refused(3, "accept us-west --endpoint-cidr 10.2.0.0/16 --wait 1s", "waited 1s for MemberCluster us-west; last seen: accepted; the hub has not given out its credential yet")
	for _, shown := range []string{"cluster     " + uid, "proposes    10.1.4.0/22", "addresses   10.2.0.0/16"} {
		if !strings.Contains(c.said, shown) {
			t.Errorf("did not show %q in\n%s", shown, c.said)
		}
	}
	go func() { // the hub
		time.Sleep(300 * time.Millisecond)
		c.hubSays("us-west", joins(uid))
	}()
	out := c.want("accept us-west --export-namespace shop --export-namespace team-* -o json", "")
	var result acceptResult
	testkit.Must(t, json.Unmarshal([]byte(out), &result))
	if !result.Joined || result.ClusterUID != uid || result.Message != "spec.endpointCIDRs is empty" || list(result.ExportNamespaces) != "shop, team-*" {
		t.Errorf("printed %+v", result)
	}
	if s := c.get("us-west").Spec; !s.Accepted || list(s.EndpointCIDRs) != "10.2.0.0/16" || len(s.Exports.Namespaces) != 2 {
		t.Errorf("accepted as %+v", s)
	}
	c.want("accept us-west", "us-west has joined") // again: nothing to do
}

// A cluster that took the other's place between the look and the word is told.
func TestAcceptTellsAnotherCluster(t *testing.T) {
	c := newHub(t)
	c.member("us-west", v1alpha1.MemberClusterSpec{Region: "us"})
	c.want("accept us-west", "us-west is accepted, before a cluster has asked")
	c.hubSays("us-west", asks(uid, "10.1.0.0/16"))
	go func() {
		time.Sleep(300 * time.Millisecond)
		c.hubSays("us-west", joins(otherUID))
	}()
	c.refused(1, "accept us-west", "cluster "+otherUID+` has joined as "us-west" meanwhile, not `+uid)
}

// Only the cluster that was shown is accepted: another one that asks by the time of the answer is not.
func TestAcceptLooksAgain(t *testing.T) {
	c := newHub(t)
	c.member("us-west", v1alpha1.MemberClusterSpec{Region: "us"})
	c.hubSays("us-west", asks(uid, "10.1.0.0/16"))
	shown := c.get("us-west")
	for what, now := range map[string]func(*v1alpha1.MemberClusterStatus){
		"does not ask any more": func(s *v1alpha1.MemberClusterStatus) { s.JoinRequest = nil },
		"another cluster asks now, " + otherUID + " and not " + uid: asks(otherUID, "0.0.0.0/0"),
	} {
		c.hubSays("us-west", now)
		if err := accept(t.Context(), c, shown); err == nil || !strings.Contains(err.Error(), what) || c.get("us-west").Spec.Accepted {
			t.Errorf("%s: %v", what, err)
		}
	}
	c.hubSays("us-west", joins(uid)) // somebody else accepted it
	testkit.Must(t, accept(t.Context(), c, shown))
}

// Revoking ends what a member has and what it asks for, whatever is accepted later.
func TestRevokeMember(t *testing.T) {
	c := newHub(t)
	c.refused(2, "revoke", "name either a member")
	c.refused(2, "revoke us-west --credential abcdefghij", "--credential goes with --edge")
	c.refused(1, "revoke us-west", `MemberCluster "us-west" does not exist: see kubectl get memberclusters`)
	c.member("us-west", v1alpha1.MemberClusterSpec{Region: "us", Accepted: true})
	c.want("revoke us-west", "it had no credential")
	c.hubSays("us-west", joins(uid))
	c.hubSays("us-west", func(s *v1alpha1.MemberClusterStatus) {
		s.JoinRequest = &v1alpha1.MemberJoinRequest{ID: "bcdefghijk", ClusterUID: uid, RequestedTime: metav1.Now(), CSR: "x"}
	})
	c.refused(3, "revoke us-west --wait 1s", "the hub has still to let go of its agent")
	go func() {
		time.Sleep(300 * time.Millisecond)
		c.hubSays("us-west", func(s *v1alpha1.MemberClusterStatus) { s.Credential = nil })
	}()
	c.membersNamespace()
	tokens := []*corev1.ServiceAccount{registration.NewMemberJoinAccount(c.get("us-west"), "unused0001", time.Now().Add(time.Hour)),
		registration.NewMemberJoinAccount(&v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west-2", UID: "x"}}, "another001", time.Now().Add(time.Hour))}
	for _, token := range tokens {
		c.create(token)
	}
	c.want("revoke us-west", "revoked: abcdefghij, bcdefghijk")
	for i, token := range tokens {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(token), token); apierrors.IsNotFound(err) != (i == 0) {
			t.Errorf("%s: %v", token.Name, err)
		}
	}
	if s := c.get("us-west").Spec; s.Accepted || list(s.RevokedCredentials) != "abcdefghij, bcdefghijk" {
		t.Errorf("revoked as %+v", s)
	}
}

// Of very many IDs the oldest go, as the object takes 64.
func TestRevokedIDsAreBounded(t *testing.T) {
	var revoked []string
	for range 2 * maxRevoked {
		revoked = withIDs(revoked, []string{registration.NewCredentialID()})
	}
	if got := withIDs(revoked, []string{"newest0000"}); len(got) != maxRevoked || got[maxRevoked-1] != "newest0000" {
		t.Errorf("%d IDs, the last is %s", len(got), got[len(got)-1])
	}
}
