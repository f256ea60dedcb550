package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/registration/agent"
)

// memberToken makes a token for us-west with the hub's real address.
func memberToken(t *testing.T, hub *cluster, more string) string {
	t.Helper()
	hub.membersNamespace()
	t.Cleanup(func() {
		_ = hub.Delete(context.Background(), &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: "us-west"}})
	})
	return strings.TrimSpace(hub.want("token create us-west --region us --hub-server " + envtestkit.Config(t).Host + " -o jsonpath={.token} " + more))
}

// agentSays writes the state that a member's agent would write.
func (c *cluster) agentSays(text string) {
	c.t.Helper()
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: agent.CredentialSecret}
	testkit.Eventually(c.t, "the Secret of the agent", func() bool { return c.Get(c.t.Context(), key, &secret) == nil })
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	secret.Annotations[agent.AnnotationStatus] = text
	testkit.Must(c.t, c.Update(c.t.Context(), &secret))
}

// A token that can only fail is refused before anything is installed.
func TestJoinRefuses(t *testing.T) {
	hub, member := newFleet(t)
	token := memberToken(t, hub, "")
	decoded, err := registration.DecodeJoinToken(token)
	testkit.Must(t, err)
	with := func(change func(*registration.JoinToken)) string {
		other := decoded
		change(&other)
		text, err := other.Encode()
		testkit.Must(t, err)
		return text
	}
	member.refused(2, "join", "name the token with --token: make one at the hub with crossway token create <member>")
	member.refused(2, "join --token "+token[:len(token)-10], "this is no join token, or only a part of one")
	member.refused(2, "join --edge --token "+token, "this token is for member us-west: leave out --edge")
	ended := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":"x","exp":%d}`, time.Now().Add(-time.Minute).Unix()))
	member.refused(1, "join --token "+with(func(o *registration.JoinToken) { o.Token = "e30." + ended + ".x" }), "the token ended ")
	member.refused(2, "join --token "+with(func(o *registration.JoinToken) { o.Token = "e30.e.x" }), "decode the token")
	member.refused(1, "join --token "+with(func(o *registration.JoinToken) { o.CA = envtestkit.Other(t).CAData }),
		"is not signed by the CA in the token")
	other := httptest.NewTLSServer(http.NotFoundHandler()) // with a certificate for 127.0.0.1
	defer other.Close()
	member.refused(1, "join --token "+with(func(o *registration.JoinToken) {
		o.Server = strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
		o.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate().Raw})
	}), "the certificate of the hub's API server is not for the name in https://localhost:")
	var secrets corev1.SecretList
	testkit.Must(t, member.List(t.Context(), &secrets, client.MatchingLabels{partOf: "crossway"}))
	if len(secrets.Items) > 0 {
		t.Errorf("a refused join wrote %s", secrets.Items[0].Name)
	}
}

// A cluster joins by one command, which gives the token to the agent and says how far
// that has come.
func TestJoinMember(t *testing.T) {
	hub, member := newFleet(t)
	member.uninstalls(agentRelease)
	token := memberToken(t, hub, "")
	file := filepath.Join(t.TempDir(), "values.yaml")
	testkit.Must(t, os.WriteFile(file, []byte("replicas: 2\n"), 0o600))
	member.refused(3, "join --wait 1s --values "+file+" --token "+token, "waited 1s for the agent; last seen: 0 of 2 pods ready; see kubectl -n crossway-system logs deployment/crossway-member-agent")
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: agent.JoinSecret}
	testkit.Must(t, member.Get(t.Context(), key, &secret))
	if string(secret.Data[agent.JoinTokenKey]) != token {
		t.Error("the agent's token is another one")
	}
	t.Cleanup(func() { _ = member.Delete(context.Background(), &secret) })

	member.agentSays("Denied: the hub refuses this cluster (NameTaken): another cluster has joined as us-west")
	member.refused(1, "join --token "+token, "another cluster has joined as us-west; see kubectl -n crossway-system logs")
	second := memberToken(t, hub, "")
	go func() {
		time.Sleep(300 * time.Millisecond)
		member.agentSays("WaitingForAcceptance: this cluster waits to be let in as us-west")
	}()
	member.want("join --token "+second, "release crossway-member-agent", "as before", "WaitingForAcceptance: this cluster waits", "Next, at the hub: crossway accept us-west")
	testkit.Must(t, member.Get(t.Context(), key, &secret))
	if string(secret.Data[agent.JoinTokenKey]) != second {
		t.Error("the agent did not get the second token")
	}
	go func() {
		time.Sleep(300 * time.Millisecond)
		member.agentSays("Working: this cluster works as us-west")
	}()
	if out := member.want("join", "as before", "Working: this cluster works as us-west"); strings.Contains(out, "Next") {
		t.Errorf("a member that works has no next step:\n%s", out)
	}
	go func() { // an agent that starts anew has a credential, and only then learns that it was revoked
		time.Sleep(300 * time.Millisecond)
		member.agentSays("Joined: this cluster is us-west in the fleet")
		time.Sleep(time.Second)
		member.agentSays("Forbidden: the hub refuses this cluster's credential: it was revoked")
	}()
	member.refused(1, "join", "the hub refuses this cluster's credential: it was revoked")
}

// The hub may be reached from the cluster and not from here.
func TestJoinWithoutAPathToTheHub(t *testing.T) {
	hub, member := newFleet(t)
	member.uninstalls(agentRelease)
	token := memberToken(t, hub, "")
	decoded, err := registration.DecodeJoinToken(token)
	testkit.Must(t, err)
	decoded.Server = "https://127.0.0.1:1"
	text, err := decoded.Encode()
	testkit.Must(t, err)
	member.want("join --wait 0 --token "+text, "crossway-member-agent", "Next, at the hub: crossway accept us-west")
	if !strings.Contains(member.said, "The hub cannot be reached from here") {
		t.Errorf("said %q", member.said)
	}
}

// Edges get a certificate that the hub signs, and which only its key's owner has.
func TestJoinEdges(t *testing.T) {
	hub, member := newFleet(t)
	member.uninstalls(edgeRelease("us"))
	hub.membersNamespace()
	pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "us"},
		Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.1.0/24"}}}}
	hub.create(pool)
	hub.lets("system:serviceaccounts:" + v1alpha1.MembersNamespace)
	edgeToken := func() string {
		return strings.TrimSpace(hub.want("token create --edge us --zone us-a --hub-server " + envtestkit.Config(t).Host + " -o jsonpath={.token}"))
	}
	token := edgeToken()
	member.refused(2, "join --edge", "crossway token create --edge <pool> --zone <zone>")
	member.refused(2, "join --token "+token, "this token is for edges of pool us: add --edge")
	member.refused(2, "join --edge --token "+token, "name the address of the hub's Service crossway-hub, which edges dial, with --hub-address")
	ca, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	go hub.signs(ca, registration.EdgeIdentity{Pool: "us", Region: "us", Zone: "us-a", PoolUID: string(pool.UID), Credential: "abcdefghij"})
	member.want("join --edge --wait 0 --hub-address hub.example --token "+token, "Secret crossway-edge-us", "spiffe://crossway/edge/us/us/us-a", "release crossway-edge-us", "installed")
	var secret corev1.Secret
	testkit.Must(t, member.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: "crossway-edge-us"}, &secret))
	t.Cleanup(func() { _ = member.Delete(context.Background(), &secret) })
	if id := identityIn(t, secret); id.Zone != "us-a" || len(secret.Data["tls.key"]) == 0 {
		t.Errorf("wrote a Secret for %s", id)
	}
	member.refused(1, "join --edge --token "+token, "this token was used already: make a new one")
	go hub.denies("Revoked", "credential is revoked; make a new token")
	member.refused(1, "join --edge --token "+edgeToken(), "the hub refuses these edges (Revoked): credential is revoked; make a new token")
}
