package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/fleetload"
	"crossway.dev/crossway/pkg/registration/agent"
)

// leaveOptions are the flags of `crossway leave`.
type leaveOptions struct {
	*app
	name    string
	context string // of the member; "": its part is left out
	over    time.Duration
	wait    time.Duration
	force   bool
	output  *output
}

func leaveCommand(a *app) *cobra.Command {
	o := &leaveOptions{app: a}
	c := &cobra.Command{
		Use:   "leave MEMBER",
		Short: "Lets a cluster go, in an order in which no request fails",
		Long: `Lets a cluster go: moves its requests to the others, waits for those that are open,
withdraws its exports, revokes its credential, deletes its MemberCluster, and
uninstalls its agent if --member-context names the cluster.

It may be run again if it was stopped. To keep the cluster in the fleet without
requests, use crossway drain; to shut out somebody who has its key, crossway revoke.`,
		Example: `  crossway leave us-west --over 2m --member-context us-west
  crossway leave us-west --force          # a cluster that is gone already`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeMembers(a),
		RunE: func(c *cobra.Command, given []string) error {
			o.name = given[0]
			return o.run(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&o.context, "member-context", "", "context of the cluster that leaves, to withdraw and uninstall there; without it that is left out")
	f.DurationVar(&o.over, "over", time.Minute, "the time in which its requests move to the others")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long to wait for open requests, and for each further step")
	f.BoolVar(&o.force, "force", false, "at once: do not move its requests before, and wait for none")
	utilruntime.Must(c.RegisterFlagCompletionFunc("member-context", completeContexts(a)))
	o.output = a.outputFlags(c)
	return c
}

// leaveResult is what `leave` did.
type leaveResult struct {
	Member string `json:"member"`
	Steps  []step `json:"steps"`
	Next   string `json:"next,omitempty"`
}

func (r *leaveResult) did(what, result string) { r.Steps = append(r.Steps, step{what, result}) }

func (o *leaveOptions) run(ctx context.Context) error {
	hub, err := o.hub()
	if err != nil {
		return err
	}
	m, err := memberNamed(ctx, hub, o.name)
	if gone := errors.Is(err, errNoMember); gone && o.context == "" {
		return fmt.Errorf("%w; if it has left and its agent is still there, name that cluster with --member-context", err)
	} else if err != nil && !gone {
		return err
	}
	var member client.Client
	if o.context != "" {
		if member, _, err = o.clientOf(o.in(o.context)); err != nil {
			return err
		}
		if err := o.checkMember(ctx, m, member); err != nil {
			return err
		}
	}
	if m == nil {
		return o.finish(ctx, member)
	}
	result := leaveResult{Member: o.name}
	if err := o.empty(ctx, &result); err != nil {
		return err
	}
	if member != nil {
		if err := o.withdraw(ctx, member, &result); err != nil {
			return err
		}
	}
	if err := o.remove(ctx, hub, &result); err != nil {
		return err
	}
	if member != nil {
		if err := o.uninstall(ctx, member, &result); err != nil {
			return err
		}
	} else {
		result.Next = "in that cluster: helm -n " + o.namespace() + " uninstall " + agentRelease + ", and kubectl delete serviceimports,services -A -l app.kubernetes.io/managed-by=crossway.dev"
	}
	return o.print(&result)
}

// finish does the rest of a leave that was stopped after the MemberCluster was deleted.
func (o *leaveOptions) finish(ctx context.Context, member client.Client) error {
	result := leaveResult{Member: o.name}
	result.did("MemberCluster", "was deleted before")
	if err := o.withdraw(ctx, member, &result); err != nil {
		return err
	}
	if err := o.uninstall(ctx, member, &result); err != nil {
		return err
	}
	return o.print(&result)
}

// checkMember refuses a context that is another cluster than the one that joined. m is nil
// where the hub has no such member: then its agent must say that it was, or that it has left.
func (o *leaveOptions) checkMember(ctx context.Context, m *v1alpha1.MemberCluster, member client.Client) error {
	if m == nil {
		var secret corev1.Secret
		err := member.Get(ctx, client.ObjectKey{Namespace: o.namespace(), Name: agent.CredentialSecret}, &secret)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read Secret %s of the cluster of --member-context: %w", agent.CredentialSecret, err)
		}
		switch is := agent.MemberOf(&secret); {
		case is == fleet.ClusterName(o.name), agent.HasLeft(&secret):
			return nil
		case is == "" && err == nil:
			return fmt.Errorf("MemberCluster %q does not exist, and the agent in the cluster of --member-context %s is no member: if nobody joins it just now, uninstall it there with helm -n %s uninstall %s",
				o.name, o.context, o.namespace(), agentRelease)
		}
		return fmt.Errorf("MemberCluster %q does not exist, and the cluster of --member-context %s has no agent of it", o.name, o.context)
	}
	var system corev1.Namespace
	if err := member.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system); err != nil {
		return fmt.Errorf("read namespace kube-system of the cluster of --member-context: %w", err)
	}
	if has := m.Status.Credential; has != nil && has.ClusterUID != string(system.UID) {
		return fmt.Errorf("--member-context %s is cluster %s; %s is %s", o.context, system.UID, o.name, has.ClusterUID)
	}
	return nil
}

// empty moves the member's requests to the others.
func (o *leaveOptions) empty(ctx context.Context, result *leaveResult) error {
	if o.force {
		result.did("requests", "not moved (--force)")
		return nil
	}
	d, end, err := o.drainer(o.name)
	if err != nil {
		return err
	}
	defer end()
	load, err := d.load(ctx)
	if err != nil {
		return fmt.Errorf("see what %s serves: %w; mend that, or leave its requests as they are with --force", o.name, err)
	}
	if only := onlyIn(load, o.name); len(only) > 0 {
		return fmt.Errorf("clients send requests to %s, which no other cluster serves: they would fail. Export it from another cluster first, or let them fail with --force", strings.Join(only, ", "))
	}
	drained, err := d.move(ctx, 100, o.over)
	if err == nil {
		err = d.awaitIdle(ctx, o.wait, &drained)
	}
	if err != nil {
		return fmt.Errorf("move the requests of %s: %w; crossway undrain takes back what has moved, and --force leaves that out", o.name, err)
	}
	if n := drained.Load.Open; n > 0 {
		result.did("requests", fmt.Sprintf("moved; %d are still open and go on", n))
		return nil
	}
	result.did("requests", "moved; none is open")
	return nil
}

// onlyIn are the imports that have requests and no other cluster to go to.
func onlyIn(load fleetload.Load, member string) (imports []string) {
	for _, room := range load.RoomWithout(member) {
		if room.Moves > 0 && len(room.Others) == 0 {
			imports = append(imports, room.Import)
		}
	}
	return imports
}

// withdraw has the agent take away its exports on the hub, and what it imported.
func (o *leaveOptions) withdraw(ctx context.Context, member client.Client, result *leaveResult) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace(), Name: agent.CredentialSecret}}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:""}}}`, agent.AnnotationLeave)
	err := member.Patch(ctx, secret, client.RawPatch(types.MergePatchType, patch))
	switch {
	case apierrors.IsNotFound(err):
		result.did("agent", "not installed")
		return nil
	case err != nil:
		return fmt.Errorf("ask the agent to leave: %w", err)
	}
	err = o.progress.wait(ctx, "the agent", o.wait, func(ctx context.Context) (string, bool, error) {
		now, err := agentStatus(ctx, member, o.namespace())
		reason, _, _ := strings.Cut(now, ":")
		return reason, reason == agent.ReasonLeft, err
	})
	switch {
	case err == nil:
		result.did("agent", "withdrew what it exported and imported")
	case o.force && errors.Is(err, errTimeout):
		result.did("agent", "did not answer (--force)")
	default:
		return fmt.Errorf("%w; if it does not run, --force leaves that out", err)
	}
	return nil
}

// remove revokes the credential and deletes the MemberCluster, and waits until the
// member's namespace on the hub is gone.
func (o *leaveOptions) remove(ctx context.Context, hub client.Client, result *leaveResult) error {
	ids, err := revokeMember(ctx, hub, o.name)
	if err != nil {
		return err
	}
	result.did("credential", "revoked: "+list(ids))
	m := &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: o.name}}
	if err := client.IgnoreNotFound(hub.Delete(ctx, m)); err != nil {
		return fmt.Errorf("delete MemberCluster %q: %w", o.name, err)
	}
	namespace := v1alpha1.MemberNamespace(fleet.ClusterName(o.name))
	err = o.progress.wait(ctx, "namespace "+namespace+" on the hub", o.wait, func(ctx context.Context) (string, bool, error) {
		err := hub.Get(ctx, client.ObjectKey{Name: namespace}, &corev1.Namespace{})
		return "is being deleted", apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	switch {
	case errors.Is(err, errTimeout) && o.force:
		result.did("MemberCluster", "deleted; namespace "+namespace+" will follow")
		return nil
	case err != nil:
		return fmt.Errorf("%w; the MemberCluster is deleted and its exports do not count any more; see crossway check", err)
	}
	result.did("MemberCluster", "deleted, with namespace "+namespace)
	return nil
}

// uninstall takes the agent out of the member.
func (o *leaveOptions) uninstall(ctx context.Context, member client.Client, result *leaveResult) error {
	done, err := uninstallRelease(o.in(o.context), agentRelease)
	if err != nil {
		return err
	}
	token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace(), Name: agent.JoinSecret}}
	if err := client.IgnoreNotFound(member.Delete(ctx, token)); err != nil {
		return fmt.Errorf("delete Secret %s: %w", token.Name, err)
	}
	if done {
		result.did("release "+agentRelease, "uninstalled")
	} else {
		result.did("release "+agentRelease, "not installed")
	}
	return nil
}

func (o *leaveOptions) print(result *leaveResult) error {
	return o.output.print("Leave", result, func(out io.Writer) error {
		if err := printSteps(out, result.Steps); err != nil {
			return err
		}
		if result.Next != "" {
			fmt.Fprintf(out, "\nNext, %s\n", result.Next)
		}
		return nil
	})
}
