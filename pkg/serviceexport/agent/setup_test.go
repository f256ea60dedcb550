package agent

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/envtestkit"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// An agent that has not read all of its cluster deletes nothing: its controllers wait
// for every kind.
func TestUnreadKindDeletesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for what must not happen")
	}
	for _, kind := range []string{"serviceexports", "services", "endpointslices"} {
		t.Run(kind, func(t *testing.T) { unreadKindDeletesNothing(t, kind) })
	}
}

func unreadKindDeletesNothing(t *testing.T, kind string) {
	f := newFixture(t, fleet.ClusterName("unread-"+kind))
	ns := f.namespace("shop-" + kind)
	names := f.shops(ns, 2)
	f.writes.reset()

	read := make(chan struct{})
	config := envtestkit.Config(t)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return testkit.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/"+kind) {
				select {
				case <-read:
				case <-r.Context().Done():
					return nil, r.Context().Err()
				}
			}
			return next.RoundTrip(r)
		})
	})
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: f.scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: controllerconfig.Controller{SkipNameValidation: ptr.To(true)},
		Client: client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
	})
	f.Must(err)
	agentConfig := envtestkit.As(f.TB, registration.MemberUser(f.name, testkit.CredentialID), v1alpha1.MembersGroup)
	agentConfig.Wrap(f.writes.count)
	hub, err := NewHub(agentConfig, f.name, f.scheme)
	f.Must(err)
	f.Must(mgr.Add(hub))
	f.Must(NewExporter(f.name, mgr, hub).SetupWithManager(mgr, nil))
	testkit.Run(f, mgr.Start)
	f.lose(ns, names[0])
	time.Sleep(3 * time.Second) // an agent that has read all needs less
	f.wantWrites("before all was read", f.writes.list())
	close(read)
	testkit.EventuallySeen(t, "the deletion to be pushed once all is read", func() (bool, any) {
		writes := f.writes.list()
		return slices.Contains(writes, exportDelete) && slices.Contains(writes, sliceDelete), writes // beside what other tests left to export
	})
}
