package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcscrd "sigs.k8s.io/mcs-api/config/crd"

	"crossway.dev/crossway/charts"
)

// fieldOwner is the manager of fields that this command applies.
const fieldOwner = "crossway"

// What a step of an installation did.
const (
	didInstall = "installed"
	didUpdate  = "updated"
	didNothing = "as before"
)

// crdSet are the CRDs of one API, with what its project ships beside them.
type crdSet struct {
	title     string
	manifests []byte
	// own are Crossway's: they follow the version of this command. Those of others
	// belong to the cluster, so what exists of them is never changed.
	own bool
}

func gatewayAPI() crdSet {
	return crdSet{title: "CRDs of the Gateway API", manifests: charts.GatewayAPI}
}

func mcsAPI() crdSet {
	return crdSet{
		title:     "CRDs of the Multi-Cluster Services API",
		manifests: slices.Concat(mcscrd.ServiceExportCRD, []byte("\n---\n"), mcscrd.ServiceImportCRD),
	}
}

func crosswayCRDs() (crdSet, error) {
	set := crdSet{title: "CRDs of Crossway", own: true}
	files, err := fs.Glob(charts.FS, "hub/crds/*.yaml")
	if err != nil {
		return set, err
	}
	for _, f := range files {
		text, err := charts.FS.ReadFile(f)
		if err != nil {
			return set, err
		}
		set.manifests = slices.Concat(set.manifests, []byte("\n---\n"), text)
	}
	return set, nil
}

// objects are the manifests of a set.
func (s crdSet) objects() ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(s.manifests), 4096); ; {
		o := &unstructured.Unstructured{}
		switch err := decoder.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read %s: %w", s.title, err)
		case len(o.Object) > 0:
			all = append(all, o)
		}
	}
}

// installCRDs installs what is missing of a set, brings Crossway's own up to date,
// and waits until the API server serves them.
func (a *app) installCRDs(ctx context.Context, c client.Client, set crdSet) (did string, err error) {
	objects, err := set.objects()
	if err != nil {
		return "", err
	}
	did = didNothing
	var names []string
	for _, o := range objects {
		if o.GetKind() == "CustomResourceDefinition" {
			names = append(names, o.GetName())
		}
		act, err := installObject(ctx, c, o, set.own)
		if err != nil {
			return "", fmt.Errorf("install %s: %s %s: %w", set.title, o.GetKind(), o.GetName(), err)
		}
		if act == didInstall || act == didUpdate && did == didNothing {
			did = act
		}
	}
	if did == didNothing {
		return did, nil
	}
	return did, a.progress.wait(ctx, set.title, time.Minute, func(ctx context.Context) (string, bool, error) {
		n, err := established(ctx, c, names)
		return fmt.Sprintf("%d of %d served", n, len(names)), n == len(names), err
	})
}

func installObject(ctx context.Context, c client.Client, o *unstructured.Unstructured, own bool) (did string, err error) {
	have := &unstructured.Unstructured{}
	have.SetGroupVersionKind(o.GroupVersionKind())
	err = c.Get(ctx, client.ObjectKeyFromObject(o), have)
	switch {
	case apierrors.IsNotFound(err):
		did = didInstall
	case err != nil:
		return "", err
	case !own:
		return didNothing, nil
	}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner(fieldOwner), client.ForceOwnership); err != nil {
		return "", err
	}
	switch {
	case did == didInstall:
		return did, nil
	case o.GetGeneration() != have.GetGeneration():
		return didUpdate, nil
	}
	return didNothing, nil
}

// established counts the CRDs that the API server serves.
func established(ctx context.Context, c client.Client, names []string) (n int, err error) {
	for _, name := range names {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := c.Get(ctx, client.ObjectKey{Name: name}, &crd); err != nil {
			return n, fmt.Errorf("read CRD %s: %w", name, err)
		}
		if slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
		}) {
			n++
		}
	}
	return n, nil
}
