package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

// revokeOptions are the flags of `crossway revoke`.
type revokeOptions struct {
	*app
	pool        string
	credentials []string
	wait        time.Duration
	output      *output
}

func revokeCommand(a *app) *cobra.Command {
	o := &revokeOptions{app: a}
	c := &cobra.Command{
		Use:   "revoke (MEMBER | --edge POOL --credential ID)",
		Short: "Ends the credential of a member, or of edges, now",
		Long: `Ends a credential, whoever has it: a member's agent can read and write no more and
its exports count no more, and join tokens that were made for it are good no more; edges
with it are disconnected and not let in again.

A credential stays revoked when its name is used again: the same or another cluster
may join with a new token, and the old key is still refused. To let a cluster go in
order, without a failed request, use crossway leave.`,
		Example: `  crossway revoke us-west
  crossway revoke --edge us --credential x3k9p0a1zq`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeMembers(a),
		RunE: func(c *cobra.Command, given []string) error {
			switch {
			case (o.pool == "") == (len(given) == 0):
				return usage("name either a member, or a pool of edges with --edge and --credential")
			case o.pool == "" && len(o.credentials) > 0:
				return usage("--credential goes with --edge: of a member, the credential in force is revoked")
			case o.pool != "":
				return o.edges(c.Context())
			}
			return o.member(c.Context(), given[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.pool, "edge", "", "EdgePool of the edges")
	f.StringSliceVar(&o.credentials, "credential", nil, "ID of a credential of edges (repeatable); see kubectl get edgepool -o yaml, status.credentials")
	f.DurationVar(&o.wait, "wait", 30*time.Second, "how long to wait until the hub has done it; 0: not at all")
	utilruntime.Must(c.RegisterFlagCompletionFunc("edge", completePools(a)))
	o.output = a.outputFlags(c)
	return c
}

// revokeResult is what `revoke` did.
type revokeResult struct {
	Member      string   `json:"member,omitempty"`
	EdgePool    string   `json:"edgePool,omitempty"`
	Credentials []string `json:"credentials"`
}

func (o *revokeOptions) member(ctx context.Context, name string) error {
	hub, err := o.hub()
	if err != nil {
		return err
	}
	ids, err := revokeMember(ctx, hub, name)
	if err != nil {
		return err
	}
	if err := endJoinTokens(ctx, hub, name); err != nil {
		return fmt.Errorf("%s is not accepted any more, and its join tokens are still good until they end: %w", name, err)
	}
	if o.wait > 0 {
		if err := o.progress.wait(ctx, "MemberCluster "+name, o.wait, letGo(hub, name)); err != nil {
			return fmt.Errorf("%w; the hub does it as soon as it runs: see crossway check", err)
		}
	}
	return o.output.print("Revocation", &revokeResult{Member: name, Credentials: ids}, func(out io.Writer) error {
		if len(ids) == 0 {
			fmt.Fprintf(out, "%s is not accepted any more; it had no credential\n", name)
			return nil
		}
		fmt.Fprintf(out, "%s is not accepted any more; revoked: %s\n", name, list(ids))
		return nil
	})
}

// revokeMember ends what a member has and what it asked for, in one update.
func revokeMember(ctx context.Context, hub client.Client, name string) (ids []string, err error) {
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		m, err := memberNamed(ctx, hub, name)
		if err != nil {
			return err
		}
		ids = []string{}
		if c := m.Status.Credential; c != nil {
			ids = append(ids, c.ID)
		}
		if r := m.Status.JoinRequest; r != nil && !slices.Contains(ids, r.ID) {
			ids = append(ids, r.ID)
		}
		m.Spec.Accepted = false
		m.Spec.RevokedCredentials = withIDs(m.Spec.RevokedCredentials, ids)
		return hub.Update(ctx, m)
	})
	if err != nil {
		return nil, fmt.Errorf("revoke: %w", err)
	}
	return ids, nil
}

// endJoinTokens deletes the accounts of a member's join tokens: who has stolen one that
// nobody has used would be the first to ask for the name.
func endJoinTokens(ctx context.Context, hub client.Client, name string) error {
	var accounts corev1.ServiceAccountList
	if err := hub.List(ctx, &accounts, client.InNamespace(v1alpha1.MembersNamespace)); err != nil {
		return fmt.Errorf("list ServiceAccounts in %s: %w", v1alpha1.MembersNamespace, err)
	}
	for i := range accounts.Items {
		if cluster, _, ok := registration.ParseMemberJoinUser(accounts.Items[i].Name); !ok || string(cluster) != name {
			continue
		}
		if err := hub.Delete(ctx, &accounts.Items[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete ServiceAccount %s: %w", accounts.Items[i].Name, err)
		}
	}
	return nil
}

// errNoMember marks the error about a MemberCluster that does not exist.
var errNoMember = errors.New("no member")

// memberNamed reads a MemberCluster.
func memberNamed(ctx context.Context, hub client.Client, name string) (*v1alpha1.MemberCluster, error) {
	var m v1alpha1.MemberCluster
	err := hub.Get(ctx, client.ObjectKey{Name: name}, &m)
	switch {
	case apierrors.IsNotFound(err):
		return nil, marked{fmt.Errorf("MemberCluster %q does not exist: see kubectl get memberclusters", name), errNoMember}
	case err != nil:
		return nil, fmt.Errorf("read MemberCluster %q: %w", name, err)
	}
	return &m, nil
}

// maxRevoked is how many IDs an object keeps (the CRDs' bound).
const maxRevoked = 64

// withIDs adds IDs to those that are revoked. The oldest go where there are too many:
// certificates of members end within a day.
func withIDs(revoked, ids []string) []string {
	for _, id := range ids {
		if !slices.Contains(revoked, id) {
			revoked = append(revoked, id)
		}
	}
	return revoked[max(0, len(revoked)-maxRevoked):]
}

// letGo is the state of a member whose credential was revoked: done once the hub lets
// nobody in for it.
func letGo(hub client.Client, name string) state {
	return func(ctx context.Context) (string, bool, error) {
		m, err := memberNamed(ctx, hub, name)
		if err != nil {
			return "", false, err
		}
		if m.Status.Credential != nil {
			return "revoked; the hub has still to let go of its agent", false, nil
		}
		return "its agent is refused", true, nil
	}
}
