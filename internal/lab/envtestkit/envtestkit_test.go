package envtestkit_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"

	"crossway.dev/crossway/internal/lab/envtestkit"
)

func TestMain(m *testing.M) { envtestkit.Main(m) }

// A hub's API server knows the three groups, and RBAC is on: a user without a
// Role is refused what the administrator may do.
func TestServer(t *testing.T) {
	groups, err := discovery.NewDiscoveryClientForConfigOrDie(envtestkit.Config(t)).ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range groups.Groups {
		names = append(names, g.Name)
	}
	for _, want := range []string{"gateway.networking.k8s.io", "multicluster.x-k8s.io"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("API group %s is missing from %v", want, names)
		}
	}
	stranger := kubernetes.NewForConfigOrDie(envtestkit.As(t, "stranger", "nobodies"))
	if _, err := stranger.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a stranger lists namespaces: %v", err)
	}
}
