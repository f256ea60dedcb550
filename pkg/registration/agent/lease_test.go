package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// toldOf waits until the hub was told that a cluster is refused.
func (f *fixture) toldOf(uid string) {
	f.Helper()
	f.Eventually("the hub is told of cluster "+uid, func() bool {
		refusal, ok := registration.ParseRefusal(f.lease().Annotations[v1alpha1.AnnotationRefusedClusterUID])
		return ok && refusal.ClusterUID == uid
	})
}

// A cluster with the Secrets of another one works on nothing and says so, there and to the
// hub. The first goes on, and the second may join under a name of its own.
func TestClone(t *testing.T) {
	f := newFixture(t, "c-west")
	p, a := f.joined()
	clone := f.in(envtestkit.Config(t)) // a cluster with another UID
	clone.secret(CredentialSecret, p.stored().Data)
	second := clone.start("agent-0")
	second.says("Refused: ", uidOf(f, p.config), uidOf(f, clone.config), "c-west", "crossway token create")
	f.toldOf(uidOf(f, clone.config))
	f.Must(a.renewOnce(t.Context()))
	if lease := f.lease(); lease.Annotations[v1alpha1.AnnotationClusterUID] != uidOf(f, p.config) {
		t.Errorf("the Lease says %v", lease.Annotations)
	}
	select {
	case <-second.works:
		t.Error("the clone works")
	default:
	}
	other := newFixture(t, "c-east")
	clone.join(other.token())
	other.approve(other.undecided())
	second.awaitWork()
	second.says("Working: ", "c-east")
}

// Of two agents with one credential and one UID, as after an etcd was copied, the first
// works. A second waits for the next renewal of the first; if that does not come, the
// first is dead. One that ended in order is not waited for.
func TestCopyOfAnEtcd(t *testing.T) {
	f := newFixture(t, "e-west")
	p, a := f.joined()
	second := p.start("agent-1")
	second.says("WaitingForHolder: ", "agent-0_")
	f.Must(a.renewOnce(t.Context()))
	second.says("Refused: ", "agent-0_", "same cluster UID", "etcd")
	f.toldOf(uidOf(f, p.config))
	f.Must(a.renewOnce(t.Context())) // although the Lease was written meanwhile
	second.stop()

	third := p.start("agent-2")
	third.says("WaitingForHolder: ")
	third.moves(registration.HolderSilence)
	third.awaitWork()
	if err := a.renewOnce(t.Context()); !errors.Is(err, errAnotherHolder) {
		t.Errorf("an agent whose Lease another one took: %v", err)
	}
	if holder := *f.lease().Spec.HolderIdentity; !strings.HasPrefix(holder, "agent-2_") {
		t.Errorf("the Lease is held by %s", holder)
	}
	third.release()
	third.stop()
	p.start("agent-3").awaitWork()
}

// Who is no longer let in says so, and nothing is asked with a credential that the hub
// does not know, but for the Lease.
func TestRevoked(t *testing.T) {
	f := newFixture(t, "v-west")
	_, a := f.joined()
	o := registration.Objects("v-west", registration.Limits{})
	f.Must(f.hub.Delete(t.Context(), &o.Binding))
	f.Eventually("the agent is refused", func() bool { return a.renewOnce(t.Context()) != nil })
	a.says("Forbidden: ", "revoked")
	if err := a.Ready(); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("/readyz says %v", err)
	}
	f.letIn(registration.MemberUser("v-west", string(a.p.stored().Data["id"])))
	f.Eventually("the agent is let in", func() bool { return a.renewOnce(t.Context()) == nil })
	a.says("Working: ")
}

// An old Lease of another joining keeps nobody out.
func TestLeaseOfAnotherJoining(t *testing.T) {
	f := newFixture(t, "o-west")
	p, a := f.joined()
	a.stop()
	lease := f.lease()
	lease.Annotations[v1alpha1.AnnotationClusterUID], lease.Annotations[v1alpha1.AnnotationCredential] = "somebody", "bbbbbbbbbb"
	f.Must(f.hub.Update(t.Context(), lease, &client.UpdateOptions{}))
	p.start("agent-0").awaitWork()
}

// A cluster that leaves before it was accepted asks no more. A new token joins it.
func TestLeaveBeforeItJoined(t *testing.T) {
	f := newFixture(t, "b-west")
	p := f.in(envtestkit.Other(t))
	a := p.start("agent-0")
	p.join(f.token())
	f.undecided()
	a.says("WaitingForAcceptance: ")
	secret := p.stored()
	secret.Annotations[AnnotationLeave] = ""
	f.Must(p.admin.Update(t.Context(), secret))
	a.says("Left: ", "asks to join no more")
	stored := p.stored()
	if _, asked := stored.Annotations[AnnotationLeave]; asked || len(stored.Data) != 1 {
		t.Errorf("the Secret has %d entries and annotations %v", len(stored.Data), stored.Annotations)
	}
	before := len(f.requests())
	p.join(f.token())
	f.Eventually("a request by the new token", func() bool { return len(f.requests()) > before })
}

// An agent that starts acts on its Secrets only once it has taken note of them. One that is to
// leave would otherwise forget a credential that it has not seen, and withdraw nothing.
func TestStartWaitsForItsCredential(t *testing.T) {
	f := newFixture(t, "n-west")
	p, a := f.joined()
	a.stop()
	s, err := newSecrets(p.config, p.namespace)
	f.Must(err)
	s.mu.Lock() // keeps the informer's handlers from taking note
	testkit.Run(t, func(ctx context.Context) error { s.run(ctx); return nil })
	f.Eventually("the informer has the Secret", func() bool { return s.credential.HasSynced() && s.join.HasSynced() })
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	early := s.synced(soon)
	s.mu.Unlock()
	if early {
		t.Error("synced before the credential was taken note of")
	}
	if !s.synced(t.Context()) {
		t.Fatal("not synced")
	}
	if have, _ := s.now(); have == nil || have.Member != "n-west" {
		t.Errorf("synced with credential %v", have)
	}
}

// A cluster that leaves withdraws what the agent made, after all that writes has ended and
// before anything of it works again, and forgets its credential. The old token joins it no
// more, and a new one does.
func TestLeave(t *testing.T) {
	f := newFixture(t, "l-west")
	p, a := f.joined()
	kept := make(chan error)
	go func() { kept <- a.Keep(t.Context()) }()
	secret := p.stored()
	secret.Annotations[AnnotationLeave] = ""
	f.Must(p.admin.Update(t.Context(), secret))
	if err := <-kept; !errors.Is(err, errLeaving) {
		t.Fatalf("a working agent that is to leave: %v", err)
	}
	a.release()
	a.stop()

	var back atomic.Bool
	p.leaves = func(c Credential) error {
		if c.Member != "l-west" || !back.Load() {
			return errors.New("the hub is away")
		}
		return nil
	}
	a = p.start("agent-0")
	a.says("Leaving: ", "the hub is away")
	back.Store(true)
	a.says("Left: ", "l-west")
	select {
	case <-a.works:
		t.Error("a cluster that left works")
	default:
	}
	if data := p.stored().Data; len(data) != 1 || len(data[keyLeft]) == 0 {
		t.Errorf("the Secret has %d entries", len(data))
	}
	if err := a.Ready(); err == nil {
		t.Error("an agent that left is ready")
	}
	before := len(f.requests())
	a.stop()
	a = p.start("agent-0")
	p.join(f.token())
	f.approve(f.undecided())
	a.awaitWork()
	if got := len(f.requests()) - before; got != 1 {
		t.Errorf("%d requests after it left", got)
	}
}
