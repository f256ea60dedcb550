package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
)

// What the hub derives from exports is for others to read. Whoever deletes it
// costs no request, and finds it written again.
func TestDerivedObjectsCostNoRequest(t *testing.T) {
	hub := story.Lab.Hub
	root, err := install.ModuleRoot()
	testkit.Must(t, err)
	crd, err := os.ReadFile(filepath.Join(root, "charts/hub/crds/crossway.dev_fleetservices.yaml"))
	testkit.Must(t, err)
	restore(t, func(ctx context.Context) error { return hub.Apply(ctx, crd) })
	fleetService := []string{"fleetservice", "store.shop", "-n", "crossway-fleet"}
	serviceImport := []string{"serviceimport", "store", "-n", "shop"}

	config := story.Client("us", "store.example.com", 100)
	testkit.Must(t, story.Await(t.Context(), config, "the store", func(s load.Sample) bool { return s.Status == 200 }))
	loaded(t, config, 600, func() {
		for _, deletion := range []struct {
			what  string
			after func()
			gone  [][]string
		}{
			{"serviceimport store -n shop", nil, [][]string{serviceImport}},
			{"fleetservice store.shop -n crossway-fleet", nil, [][]string{fleetService, serviceImport}},
			{"namespace crossway-fleet", nil, [][]string{fleetService, serviceImport}},
			{"crd fleetservices.crossway.dev", func() { testkit.Must(t, hub.Apply(t.Context(), crd)) }, [][]string{fleetService, serviceImport}},
		} {
			before := make([]string, len(deletion.gone))
			for i, object := range deletion.gone {
				before[i] = uid(t, object)
			}
			kubectl(t, hub, append([]string{"delete"}, strings.Fields(deletion.what)...)...)
			if deletion.after != nil {
				deletion.after()
			}
			for i, object := range deletion.gone {
				eventually(t, strings.Join(object, " ")+" to come back after the deletion of "+deletion.what, func() (bool, string) {
					now := uid(t, object)
					return now != "" && (now != before[i] || object[0] == "serviceimport"), now
				})
			}
		}
	})
}

// uid is empty where the object does not exist.
func uid(t *testing.T, object []string) string {
	t.Helper()
	out, err := story.Lab.Hub.Kubectl(t.Context(), nil, append(append([]string{"get"}, object...), "-o", "jsonpath={.metadata.uid}")...)
	if err != nil {
		return ""
	}
	return out
}
