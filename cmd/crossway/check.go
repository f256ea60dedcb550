package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/check"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

func checkCommand(a *app) *cobra.Command {
	o := &checkOptions{app: a}
	c := &cobra.Command{
		Use:   "check",
		Short: "Looks at the whole fleet, and says what is wrong and what to do",
		Long: `Looks at the hub (its Deployment, CRDs and certificates, whether its replicas
hear each other, who leads), at each member (whether it has joined and is heard
from, its clock, addresses, credential and version) and at each EdgePool (edges,
credentials), and prints a line for each.

Exit code 1: something is wrong. Warnings alone are exit code 0.`,
		Example: `  crossway check
  crossway check -o json | jq '.findings[] | select(.level != "ok")'`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	o.output = a.outputFlags(c)
	return c
}

type checkOptions struct {
	*app
	output *output
}

// checkResult is what `check` found.
type checkResult struct {
	Findings []check.Finding `json:"findings"`
}

func (o *checkOptions) run(ctx context.Context) error {
	hub, config, err := o.clientOf(o.kubeconfig)
	if err != nil {
		return err
	}
	o.progress.say("looking at the hub %s ...", config.Host)
	facts, err := o.gather(ctx, hub, config)
	if err != nil {
		return err
	}
	result := checkResult{Findings: check.Findings(facts)}
	if err := o.output.print("Check", &result, result.text); err != nil {
		return err
	}
	wrong := slices.DeleteFunc(slices.Clone(result.Findings), func(f check.Finding) bool { return f.Level != check.Wrong })
	if len(wrong) > 0 {
		return fmt.Errorf("%d of %d findings are wrong", len(wrong), len(result.Findings))
	}
	return nil
}

func (r checkResult) text(out io.Writer) error {
	var rows [][]string
	for _, f := range r.Findings {
		rows = append(rows, []string{string(f.Level), f.What, oneLine(f.Message)})
		if f.Do != "" {
			rows = append(rows, []string{"", "", "-> " + oneLine(f.Do)})
		}
	}
	return columns(out, rows)
}

// oneLine keeps a text of others from breaking a table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// gather reads what check decides about. What the user may not read is noted; what
// nobody can read ends it.
func (o *checkOptions) gather(ctx context.Context, hub client.Client, config *rest.Config) (check.Facts, error) {
	f := check.Facts{Version: program.Version(), Namespace: o.namespace(), Unread: map[string]string{}, Secrets: map[string]*corev1.Secret{}}
	var err error
	if f.Now, err = timeOf(config)(ctx); err != nil {
		return f, err
	}
	f.Local = time.Now()
	steps := []func(context.Context, client.Client, *check.Facts) error{readCRDs, readDeployment, readLease, readSecrets, readMembers}
	for _, step := range steps {
		if err := step(ctx, hub, &f); err != nil {
			return f, err
		}
	}
	if f.Deployment != nil && f.Deployment.Status.ReadyReplicas > 1 {
		o.readReplicas(ctx, config, &f)
	}
	return f, nil
}

// readReplicas asks the replicas of the hub whether they hear each other.
func (o *checkOptions) readReplicas(ctx context.Context, config *rest.Config, f *check.Facts) {
	load, err := o.load(ctx, config)
	switch {
	case err != nil:
		f.Unread[check.UnreadReplicas] = err.Error()
	case len(load.Unread) > 0:
		f.Unread[check.UnreadReplicas] = strings.Join(load.Unread, "; ")
	}
	if load != nil {
		f.Deaf = load.Deaf
	}
}

// unless notes an error of somebody who may not read something.
func unless(f *check.Facts, key string, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		f.Unread[key] = "forbidden"
		return nil
	case apierrors.IsNotFound(err):
		return nil
	}
	return err
}

func readCRDs(ctx context.Context, hub client.Client, f *check.Facts) error {
	own, err := crosswayCRDs()
	if err != nil {
		return err
	}
	f.CRDs = map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, set := range []crdSet{gatewayAPI(), mcsAPI(), own} {
		want, err := set.crds()
		if err != nil {
			return err
		}
		f.Sets = append(f.Sets, check.CRDs{Title: set.title, Want: want, Own: set.own})
		for _, w := range want {
			var have apiextensionsv1.CustomResourceDefinition
			err := hub.Get(ctx, client.ObjectKey{Name: w.Name}, &have)
			if err == nil {
				f.CRDs[w.Name] = &have
			} else if err := unless(f, check.UnreadCRDs, err); err != nil {
				return fmt.Errorf("read CRD %s: %w", w.Name, err)
			}
		}
	}
	return nil
}

// crds are the CRDs of a set.
func (s crdSet) crds() (out []apiextensionsv1.CustomResourceDefinition, err error) {
	objects, err := s.objects()
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &crd); err != nil {
			return nil, fmt.Errorf("read %s: %w", s.title, err)
		}
		out = append(out, crd)
	}
	return out, nil
}

func readDeployment(ctx context.Context, hub client.Client, f *check.Facts) error {
	var d appsv1.Deployment
	err := hub.Get(ctx, client.ObjectKey{Namespace: f.Namespace, Name: hubRelease}, &d)
	if err == nil {
		f.Deployment = &d
	}
	return unless(f, check.UnreadDeployment, err)
}

func readLease(ctx context.Context, hub client.Client, f *check.Facts) error {
	var l coordinationv1.Lease
	err := hub.Get(ctx, client.ObjectKey{Namespace: f.Namespace, Name: check.LeaseName}, &l)
	if err == nil {
		f.Lease = &l
	}
	return unless(f, check.UnreadLease, err)
}

func readSecrets(ctx context.Context, hub client.Client, f *check.Facts) error {
	for _, name := range []string{registration.EdgeCASecret, registration.XDSSecret, registration.ReplicaSecret, registration.MemberCASecret} {
		var s corev1.Secret
		err := hub.Get(ctx, client.ObjectKey{Namespace: f.Namespace, Name: name}, &s)
		if err == nil {
			f.Secrets[name] = &s
		} else if err := unless(f, name, err); err != nil {
			return fmt.Errorf("read Secret %s: %w", name, err)
		}
	}
	return nil
}

// readMembers reads members and pools. Where their CRDs are missing, there are none.
func readMembers(ctx context.Context, hub client.Client, f *check.Facts) error {
	if f.CRDs["memberclusters.crossway.dev"] == nil && f.Unread[check.UnreadCRDs] == "" {
		return nil
	}
	var members v1alpha1.MemberClusterList
	var pools v1alpha1.EdgePoolList
	if err := errors.Join(hub.List(ctx, &members), hub.List(ctx, &pools)); err != nil {
		return fmt.Errorf("list MemberClusters and EdgePools: %w", err)
	}
	f.Pools = pools.Items
	for _, m := range members.Items {
		var lease coordinationv1.Lease
		err := hub.Get(ctx, client.ObjectKey{Namespace: v1alpha1.MemberNamespace(fleet.ClusterName(m.Name)), Name: v1alpha1.AgentLease}, &lease)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			return fmt.Errorf("read the Lease of %s: %w", m.Name, err)
		}
		f.Members = append(f.Members, check.Member{MemberCluster: m, Lease: maps.Clone(lease.Annotations)})
	}
	return nil
}
