package main

import (
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// A fleet admin rotates the edge CA in two commands. The second waits for edges that use the old CA, and says which.
func TestRotateCA(t *testing.T) {
	h := newHub(t)
	h.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "rotating"}})
	pair, err := registration.NewEdgeCA(time.Now(), rand.Reader)
	testkit.Must(t, err)
	ca := registration.CA{Pair: pair}
	h.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "rotating", Name: registration.EdgeCASecret}, Type: corev1.SecretTypeTLS, Data: ca.Data()})
	pool := &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "rotating"}, Spec: v1alpha1.EdgePoolSpec{Region: "us", Addresses: []v1alpha1.AddressBlock{{CIDR: "198.18.9.0/24"}}}}
	h.create(pool)
	pool.Status.Credentials = []v1alpha1.EdgeCredential{{ID: "abcdefghi1", CA: ca.Name(), Edges: 2, ExpirationTime: metav1.NewTime(time.Now().Add(time.Hour))}}
	testkit.Must(t, h.Status().Update(t.Context(), pool))

	stop := h.leads(t, "rotating")
	defer stop()
	out, err := h.crossway("hub", "rotate-ca", "--namespace", "rotating", "--wait", "20s")
	if err != nil || !strings.Contains(out, ca.Name()+" is trusted until: crossway hub rotate-ca --finish") {
		t.Fatalf("printed %q, %v", out, err)
	}
	h.wantError("abcdefghi1 of EdgePool rotating (2 edges)", "hub", "rotate-ca", "--namespace", "rotating", "--finish", "--wait", "1s")
	out, err = h.crossway("hub", "rotate-ca", "--namespace", "rotating", "--force", "--wait", "20s")
	if err != nil || !strings.Contains(out, "is the only one") {
		t.Errorf("printed %q, %v", out, err)
	}
	h.wantError("Role crossway-edge-signer", "hub", "rotate-ca", "--namespace", "nowhere")
}

// leads takes the steps of a rotation as the hub's leader does, without its pauses. An edge uses the old CA.
func (c *cluster) leads(t *testing.T, namespace string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for now := time.Now(); ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			now = now.Add(registration.NextCAWait)
			var secret corev1.Secret
			if c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: registration.EdgeCASecret}, &secret) != nil {
				continue
			}
			rotated, err := registration.CAOf(secret.Data).Rotate(registration.Rotation{Request: secret.Annotations[registration.AnnotationRotate],
				OldUsers: []string{"envoy-0"}, Now: now, Random: rand.Reader})
			if err != nil || !rotated.Changed && !rotated.Answered {
				continue
			}
			secret.Data = rotated.CA.Data()
			if rotated.Answered {
				delete(secret.Annotations, registration.AnnotationRotate)
			}
			_ = c.Update(ctx, &secret) // a conflict: again
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
