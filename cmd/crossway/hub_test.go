package main

import (
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/internal/testkit"
)

// hubInit is a command line; an API server alone runs no pods, so it does not wait.
const hubInit = "hub init --set hubCIDRs={10.10.0.0/16} --wait 0"

// A cluster becomes the hub by one command, which may run again: it installs what is
// missing, updates what is Crossway's own, and says of the rest that it is as before.
func TestHubInit(t *testing.T) {
	_, c := newFleet(t)
	c.uninstalls(hubRelease)
	for _, name := range []string{"httproutes.gateway.networking.k8s.io", "memberclusters.crossway.dev"} {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		crd.Name = name
		testkit.Must(t, c.Delete(t.Context(), crd))
		testkit.Eventually(t, name+" is gone", func() bool {
			return apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
		})
	}
	c.refused(1, "hub init --wait 0", "chart hub: hubCIDRs is required: the pod and Service CIDRs of this cluster, like --set 'hubCIDRs={")
	c.refused(1, "hub init --wait 0 --set hubCIDR=x", "additional properties 'hubCIDR' not allowed")
	c.refused(2, "hub init --values nowhere.yaml", "nowhere.yaml: no such file")
	c.want(hubInit, "Gateway API", "as before", "release crossway-hub", "installed", "Next:", "crossway token create")
	var d appsv1.Deployment
	key := client.ObjectKey{Namespace: "crossway-system", Name: "crossway-hub"}
	testkit.Must(t, c.Get(t.Context(), key, &d))
	if got := strings.Join(d.Spec.Template.Spec.Containers[0].Args, " "); !strings.Contains(got, "--hub-cidrs=10.10.0.0/16") {
		t.Errorf("the hub runs with %s", got)
	}
	c.want("hub init --wait 0", "CRDs of Crossway", "as before", "release crossway-hub", "as before")
	c.want("hub init --wait 0 --set region=us", "release crossway-hub", "updated")
	testkit.Must(t, c.Get(t.Context(), key, &d))
	if got := strings.Join(d.Spec.Template.Spec.Containers[0].Args, " "); !strings.Contains(got, "--hub-cidrs=10.10.0.0/16") || !strings.Contains(got, "--region=us") {
		t.Errorf("after an update the hub runs with %s", got)
	}
	c.refused(3, "hub init --wait 1s", "waited 1s for the hub; last seen: 0 of 2 pods ready; see kubectl -n crossway-system logs deployment/crossway-hub")
}

// What exists of other projects is never changed; Crossway's own follows the command.
func TestHubInitKeepsCRDsOfOthers(t *testing.T) {
	_, c := newFleet(t)
	c.uninstalls(hubRelease)
	change := func(name string) {
		var crd apiextensionsv1.CustomResourceDefinition
		testkit.Must(t, c.Get(t.Context(), client.ObjectKey{Name: name}, &crd))
		crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description = "changed"
		testkit.Must(t, c.Update(t.Context(), &crd))
	}
	changed := func(name string) bool {
		var crd apiextensionsv1.CustomResourceDefinition
		testkit.Must(t, c.Get(t.Context(), client.ObjectKey{Name: name}, &crd))
		return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Description == "changed"
	}
	change("serviceexports.multicluster.x-k8s.io")
	change("edgepools.crossway.dev")
	c.want(hubInit, "Multi-Cluster Services API", "as before", "CRDs of Crossway", "updated")
	if !changed("serviceexports.multicluster.x-k8s.io") || changed("edgepools.crossway.dev") {
		t.Error("the CRDs of others must stay, and Crossway's be this version's")
	}
}

func TestHubInitPrintsJSON(t *testing.T) {
	_, c := newFleet(t)
	c.uninstalls(hubRelease)
	var result struct {
		Kind  string
		Steps []step
	}
	testkit.Must(t, json.Unmarshal([]byte(c.want(hubInit+" -o json")), &result))
	if result.Kind != "HubInit" || len(result.Steps) != 4 || result.Steps[0].What != "CRDs of the Gateway API" {
		t.Errorf("printed %+v", result)
	}
	c.refused(2, hubInit+" -o table", `output format "table"`)
}

// Errors of the command line, and of clusters that cannot be reached, say what to do.
func TestErrorsSayWhatToDo(t *testing.T) {
	c := newHub(t)
	c.refused(2, "hub inti", `unknown command "inti"`)
	c.refused(2, "frobnicate", `unknown command "frobnicate" for "crossway"; see crossway --help`)
	c.refused(2, "hub init --wiat 3", "unknown flag: --wiat; see crossway hub init --help")
	c.refused(2, "hub init now", `unknown command "now" for "crossway hub init"; see crossway hub init --help`)
	other := *c
	other.context = "nowhere"
	other.refused(1, "hub init", `context "nowhere" does not exist; name a context with --context`)
}
