package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// acceptOptions are the flags of `crossway accept`.
type acceptOptions struct {
	*app
	name       string
	cidrs      []string
	namespaces []string
	clusterUID string
	yes        bool
	wait       time.Duration
	output     *output
}

func acceptCommand(a *app) *cobra.Command {
	o := &acceptOptions{app: a}
	c := &cobra.Command{
		Use:   "accept MEMBER",
		Short: "Lets a cluster in that has asked to join",
		Long: `Shows which cluster has asked (the UID of its namespace kube-system), since when,
and which addresses it proposes to announce; sets spec.accepted of its MemberCluster,
and waits until its agent has joined.

To be sure that it is the cluster which you mean, compare the UID with that of
  kubectl --context <its context> get namespace kube-system -o jsonpath={.metadata.uid}
or give it as --cluster-uid.`,
		Example: `  crossway accept us-west
  crossway accept us-west --endpoint-cidr 10.1.0.0/16 --export-namespace shop --export-namespace 'team-*'`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeMembers(a),
		RunE: func(c *cobra.Command, given []string) error {
			o.name = given[0]
			return o.run(c.Context())
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.cidrs, "endpoint-cidr", nil, "range of addresses that it may announce (repeatable; default: those of its MemberCluster, or else those that it proposes)")
	f.StringSliceVar(&o.namespaces, "export-namespace", nil, "namespace that it may export, or a pattern like team-* (repeatable; default: those of its MemberCluster)")
	f.StringVar(&o.clusterUID, "cluster-uid", "", "accept only the cluster with this UID")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long to wait until it has joined; 0: not at all")
	o.output = a.outputFlags(c)
	return c
}

// acceptResult is what `accept` did.
type acceptResult struct {
	Member           string   `json:"member"`
	ClusterUID       string   `json:"clusterUID,omitempty"`
	EndpointCIDRs    []string `json:"endpointCIDRs"`
	ExportNamespaces []string `json:"exportNamespaces"`
	Joined           bool     `json:"joined"`
	// Message is what does not hold yet.
	Message string `json:"message,omitempty"`
}

func (o *acceptOptions) run(ctx context.Context) error {
	hub, err := o.hub()
	if err != nil {
		return err
	}
	var all v1alpha1.MemberClusterList
	if err := hub.List(ctx, &all); err != nil {
		return fmt.Errorf("list MemberClusters: %w", err)
	}
	m, err := o.decide(all.Items)
	if err != nil {
		return err
	}
	o.show(m)
	if err := o.confirm(m); err != nil {
		return err
	}
	if err := accept(ctx, hub, m); err != nil {
		return err
	}
	return o.report(ctx, hub, m)
}

// decide returns the MemberCluster as it is to be, or why it cannot be accepted.
func (o *acceptOptions) decide(all []v1alpha1.MemberCluster) (*v1alpha1.MemberCluster, error) {
	m := memberOf(all, o.name)
	if m == nil {
		return nil, fmt.Errorf("MemberCluster %q does not exist: make a token for it with crossway token create %s --region <region>%s", o.name, o.name, exists(all))
	}
	if m.DeletionTimestamp != nil {
		return nil, fmt.Errorf("MemberCluster %q is being deleted; wait until it is gone", o.name)
	}
	asks := m.Status.JoinRequest
	if o.clusterUID != "" {
		switch has := registration.InForce(m); {
		case asks == nil && has == nil:
			return nil, fmt.Errorf("no cluster has asked to join as %q yet; without --cluster-uid it may be accepted before", o.name)
		case asks != nil && asks.ClusterUID != o.clusterUID:
			return nil, fmt.Errorf("cluster %s asks to join as %q, not %s; find out whose it is, and make another token", asks.ClusterUID, o.name, o.clusterUID)
		case asks == nil && has.ClusterUID != o.clusterUID:
			return nil, fmt.Errorf("cluster %s has joined as %q, not %s", has.ClusterUID, o.name, o.clusterUID)
		}
	}
	switch {
	case len(o.cidrs) > 0:
		m.Spec.EndpointCIDRs = o.cidrs
	case len(m.Spec.EndpointCIDRs) == 0 && asks != nil:
		m.Spec.EndpointCIDRs = asks.EndpointCIDRs
	}
	if len(o.namespaces) > 0 {
		m.Spec.Exports.Namespaces = nil
	}
	for _, n := range o.namespaces {
		m.Spec.Exports.Namespaces = append(m.Spec.Exports.Namespaces, v1alpha1.NamespacePattern(n))
	}
	m.Spec.Accepted = true
	if faults := registration.Admissions(all, nil)[fleet.ClusterName(m.Name)].Faults; len(faults) > 0 {
		return nil, fmt.Errorf("its addresses: %s; name others with --endpoint-cidr, or correct the other MemberCluster", strings.Join(faults, "; "))
	}
	return m, nil
}

// memberOf returns the member of a name among all; nil: there is none.
func memberOf(all []v1alpha1.MemberCluster, name string) *v1alpha1.MemberCluster {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// exists continues an error about a name that does not exist with those that do.
func exists(all []v1alpha1.MemberCluster) string {
	var names []string
	for _, m := range all {
		names = append(names, m.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return ", or name one that exists (" + strings.Join(names, ", ") + ")"
}

// show says who has asked, and what it will be allowed.
func (o *acceptOptions) show(m *v1alpha1.MemberCluster) {
	switch asks, has := m.Status.JoinRequest, registration.InForce(m); {
	case asks != nil:
		o.progress.say("cluster     %s\nasked       %s (%s ago)\nproposes    %s", asks.ClusterUID,
			asks.RequestedTime.UTC().Format(time.RFC3339), time.Since(asks.RequestedTime.Time).Round(time.Second), list(asks.EndpointCIDRs))
	case has != nil:
		o.progress.say("cluster     %s\njoined      %s", has.ClusterUID, has.IssuedTime.UTC().Format(time.RFC3339))
	default:
		o.progress.say("cluster     none has asked yet: the one that joins with a token for %s is let in at once", m.Name)
	}
	o.progress.say("region      %s\naddresses   %s\nexports     namespaces %s", m.Spec.Region, list(m.Spec.EndpointCIDRs), list(patterns(m)))
}

func list(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func patterns(m *v1alpha1.MemberCluster) []string {
	out := []string{}
	for _, p := range m.Spec.Exports.Namespaces {
		out = append(out, string(p))
	}
	return out
}

// confirm asks a person at a terminal.
func (o *acceptOptions) confirm(m *v1alpha1.MemberCluster) error {
	in, ok := o.streams.In.(*os.File)
	if o.yes || !ok || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	fmt.Fprintf(o.streams.ErrOut, "Accept it as %s? [y/N] ", m.Name)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("not accepted")
	}
	return nil
}

// accept writes what was decided, onto the version that the hub has now: it writes
// the status of MemberClusters all the time.
func accept(ctx context.Context, hub client.Client, decided *v1alpha1.MemberCluster) error {
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var m v1alpha1.MemberCluster
		if err := hub.Get(ctx, client.ObjectKeyFromObject(decided), &m); err != nil {
			return err
		}
		if err := stillAsks(decided.Status.JoinRequest, &m); err != nil {
			return err
		}
		m.Spec.Accepted, m.Spec.EndpointCIDRs, m.Spec.Exports.Namespaces = true, decided.Spec.EndpointCIDRs, decided.Spec.Exports.Namespaces
		return hub.Update(ctx, &m)
	})
	if err != nil {
		return fmt.Errorf("accept MemberCluster %q: %w", decided.Name, err)
	}
	return nil
}

// stillAsks returns an error unless it is the cluster that was shown which would be let in:
// a person may take hours to answer, and a request lasts a day.
func stillAsks(shown *v1alpha1.MemberJoinRequest, m *v1alpha1.MemberCluster) error {
	if shown == nil {
		return nil
	}
	if has := m.Status.Credential; has != nil && has.ID == shown.ID { // somebody else was faster
		return nil
	}
	switch asks := m.Status.JoinRequest; {
	case asks == nil:
		return fmt.Errorf("cluster %s does not ask any more; look again", shown.ClusterUID)
	case asks.ID != shown.ID || asks.ClusterUID != shown.ClusterUID:
		return fmt.Errorf("another cluster asks now, %s and not %s; look again", asks.ClusterUID, shown.ClusterUID)
	}
	return nil
}

// report waits until the cluster has joined, if one has asked, and prints the result.
func (o *acceptOptions) report(ctx context.Context, hub client.Client, m *v1alpha1.MemberCluster) error {
	r := acceptResult{Member: m.Name, EndpointCIDRs: append([]string{}, m.Spec.EndpointCIDRs...), ExportNamespaces: patterns(m)}
	switch asks, has := m.Status.JoinRequest, registration.InForce(m); {
	case asks != nil:
		r.ClusterUID = asks.ClusterUID
	case has != nil:
		r.ClusterUID = has.ClusterUID
	}
	if r.ClusterUID != "" && o.wait > 0 {
		var now v1alpha1.MemberCluster
		if err := o.progress.wait(ctx, "MemberCluster "+m.Name, o.wait, joined(hub, m.Name, r.ClusterUID, &now)); err != nil {
			return fmt.Errorf("%w; see crossway check, and in that cluster: kubectl -n %s logs deployment/%s", err, o.namespace(), agentRelease)
		}
		r.Joined = true
		if c := meta.FindStatusCondition(now.Status.Conditions, condition.MemberExportsAcceptedType); c != nil && c.Status != "True" {
			r.Message = c.Message
		}
	}
	return o.output.print("Acceptance", &r, func(out io.Writer) error {
		switch {
		case r.Joined:
			fmt.Fprintf(out, "%s has joined\n", m.Name)
		case r.ClusterUID != "":
			fmt.Fprintf(out, "%s is accepted; crossway members shows when it has joined\n", m.Name)
		default:
			fmt.Fprintf(out, "%s is accepted, before a cluster has asked; next, in that cluster: crossway join\n", m.Name)
		}
		if r.Message != "" {
			fmt.Fprintln(out, r.Message)
		}
		return nil
	})
}

// joined is the state of a member: done once the hub has let in the agent of a
// cluster and has heard from it.
func joined(hub client.Client, name, clusterUID string, now *v1alpha1.MemberCluster) state {
	return func(ctx context.Context) (string, bool, error) {
		*now = v1alpha1.MemberCluster{}
		if err := hub.Get(ctx, client.ObjectKey{Name: name}, now); err != nil {
			return "", false, fmt.Errorf("read MemberCluster %q: %w", name, err)
		}
		switch has := registration.InForce(now); {
		case has == nil:
			return "accepted; the hub has not given out its credential yet", false, nil
		case has.ClusterUID != clusterUID:
			return "", false, fmt.Errorf("cluster %s has joined as %q meanwhile, not %s; if you do not know it: crossway revoke %s", has.ClusterUID, name, clusterUID, name)
		}
		for _, t := range []string{condition.MemberJoinedType, condition.MemberReachableType} {
			if !meta.IsStatusConditionTrue(now.Status.Conditions, t) {
				return "has its credential; the hub waits to hear from its agent", false, nil
			}
		}
		return "joined", true, nil
	}
}
