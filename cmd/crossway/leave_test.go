package main

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleetload"
	"crossway.dev/crossway/pkg/registration/agent"
)

// A cluster leaves in order: its agent withdraws, and only then is it shut out; then its
// agent is uninstalled.
func TestLeave(t *testing.T) {
	hub, member := newFleet(t)
	member.uninstalls(agentRelease)
	hub.refused(1, "leave us-west", `MemberCluster "us-west" does not exist`)
	token := memberToken(t, hub, "")
	member.want("join --wait 0 --token " + token)
	var system corev1.Namespace
	testkit.Must(t, member.Get(t.Context(), client.ObjectKey{Name: "kube-system"}, &system))
	hub.hubSays("us-west", joins(uid))
	hub.refused(1, "leave us-west --force --member-context us-west", "--member-context us-west is cluster "+string(system.UID)+"; us-west is "+uid)
	hub.hubSays("us-west", joins(string(system.UID)))
	hub.refused(1, "leave us-west", "see what us-west serves: no pod of the hub is ready")
	if s := hub.get("us-west").Spec; len(s.RevokedCredentials) > 0 || s.Drain != nil {
		t.Fatal("who could not be emptied was revoked")
	}
	key := client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: agent.CredentialSecret}
	go func() { // the agent
		var secret corev1.Secret
		testkit.Eventually(t, "a word to leave", func() bool {
			err := member.Get(t.Context(), key, &secret)
			_, asked := secret.Annotations[agent.AnnotationLeave]
			return err == nil && asked
		})
		if m := hub.get("us-west"); len(m.Spec.RevokedCredentials) > 0 || m.DeletionTimestamp != nil {
			t.Error("the cluster was shut out before its agent had withdrawn")
		}
		member.agentSays("Left: this cluster is in no fleet")
	}()
	hub.want("leave us-west --force --wait 20s --member-context us-west", "requests", "not moved (--force)", "agent", "withdrew",
		"credential", "revoked: abcdefghij", "MemberCluster", "deleted, with namespace member-us-west", "release crossway-member-agent", "uninstalled")
	if err := hub.Get(t.Context(), client.ObjectKey{Name: "us-west"}, &v1alpha1.MemberCluster{}); !apierrors.IsNotFound(err) {
		t.Errorf("MemberCluster us-west: %v", err)
	}
	if err := member.Get(t.Context(), client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: agent.JoinSecret}, &corev1.Secret{}); !apierrors.IsNotFound(err) {
		t.Errorf("Secret %s: %v", agent.JoinSecret, err)
	}
}

// A leave that was stopped after the MemberCluster was deleted goes on when it is run again,
// in the cluster that was that member and in no other.
func TestLeaveGoesOn(t *testing.T) {
	hub, member := newFleet(t)
	member.uninstalls(agentRelease)
	hub.refused(1, "leave us-gone --member-context us-west", "has no agent of it")
	credential := agent.Credential{Member: "us-west", ID: "abcdefghij"}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.SystemNamespace, Name: agent.CredentialSecret}}
	testkit.Must(t, client.IgnoreAlreadyExists(member.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.SystemNamespace}})))
	member.create(secret)
	hub.refused(1, "leave us-west --member-context us-west", "is no member: if nobody joins it just now, uninstall it there with helm -n crossway-system uninstall crossway-member-agent")
	secret.Data = credential.Data()
	testkit.Must(t, member.Update(t.Context(), secret))
	hub.refused(1, "leave us-gone --member-context us-west", "has no agent of it")
	go func() { // the agent
		testkit.Eventually(t, "a word to leave", func() bool {
			err := member.Get(t.Context(), client.ObjectKeyFromObject(secret), secret)
			_, asked := secret.Annotations[agent.AnnotationLeave]
			return err == nil && asked
		})
		member.agentSays("Left: this cluster is in no fleet")
	}()
	hub.want("leave us-west --wait 20s --member-context us-west", "was deleted before", "withdrew", "release crossway-member-agent")
}

// Of a cluster that is gone, the hub's part is done alone.
func TestLeaveWithoutTheCluster(t *testing.T) {
	hub, _ := newFleet(t)
	hub.member("us-gone", v1alpha1.MemberClusterSpec{Region: "us", Accepted: true})
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-us-gone"}}
	testkit.Must(t, hub.Create(t.Context(), namespace))
	hub.want("leave us-gone --force --wait 1s", "credential", "revoked: none", "deleted; namespace member-us-gone will follow",
		"Next, in that cluster: helm -n crossway-system uninstall crossway-member-agent")
	t.Cleanup(func() { _ = hub.Delete(context.Background(), namespace) })
}

// A cluster that alone serves what clients ask for does not leave without a word.
func TestWhatOnlyALeavingClusterServes(t *testing.T) {
	serves := func(clusters ...string) *fleetload.Import {
		i := &fleetload.Import{Demand: map[string]float64{"us": 10}, Shares: map[string]map[string]float64{"us": {"us-west": 1}}, Ready: map[string]float64{}}
		for _, c := range clusters {
			i.Ready[c] = 2
		}
		return i
	}
	idle := serves("us-west")
	idle.Demand = nil
	load := fleetload.Load{Imports: map[string]*fleetload.Import{"shop/both": serves("us-west", "us-east"), "shop/only": serves("us-west"), "shop/idle": idle}}
	if got := onlyIn(load, "us-west"); list(got) != "shop/only" {
		t.Errorf("only us-west serves %v, want shop/only", got)
	}
}
