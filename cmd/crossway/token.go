package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

// A token's life: API servers give none below 10 min, and the hub none above a day.
const (
	minTokenLife = 10 * time.Minute
	maxTokenLife = 24 * time.Hour
)

func tokenCommand(a *app) *cobra.Command {
	return group("token", "Tokens with which a cluster or edges join", tokenCreateCommand(a))
}

// tokenOptions are the flags of `crossway token create`.
type tokenOptions struct {
	*app
	pool         string
	region, zone string
	cidrs        []string
	namespaces   []string
	life         time.Duration
	server       string
	caFile       string
	output       *output
}

func tokenCreateCommand(a *app) *cobra.Command {
	o := &tokenOptions{app: a}
	c := &cobra.Command{
		Use:   "create (MEMBER | --edge POOL)",
		Short: "Makes a token with which one cluster, or the edges of one cluster, may join",
		Long: `Makes a token and prints the command that uses it. It is good for one joining,
and for an hour unless --ttl says otherwise.

For a member it makes a MemberCluster, where there is none yet, that is not accepted:
a cluster that joins with the token is let in by crossway accept, and not before.

For edges (--edge) the token itself is the consent: whoever has it gets a certificate
of that pool and zone.`,
		Example: `  crossway token create us-west --region us --zone us-a --endpoint-cidr 10.1.0.0/16 --export-namespace shop
  crossway token create --edge us --zone us-a --ttl 15m`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeMembers(a),
		RunE:              func(c *cobra.Command, given []string) error { return o.run(c.Context(), given) },
	}
	f := c.Flags()
	f.StringVar(&o.pool, "edge", "", "EdgePool of the edges that join")
	f.StringVar(&o.region, "region", "", "region of the cluster (required for a new MemberCluster)")
	f.StringVar(&o.zone, "zone", "", "zone of the edges (required with --edge), or of the cluster's endpoints that have none")
	f.StringSliceVar(&o.cidrs, "endpoint-cidr", nil, "range of addresses that the cluster may announce (repeatable); its agent proposes one otherwise")
	f.StringSliceVar(&o.namespaces, "export-namespace", nil, "namespace that the cluster may export, or a pattern like team-* (repeatable)")
	f.DurationVar(&o.life, "ttl", time.Hour, "how long the token is good, 10m to 24h")
	f.StringVar(&o.server, "hub-server", "", "URL at which the other cluster reaches the hub's API server (default: this context's)")
	f.StringVar(&o.caFile, "hub-ca", "", "file with the CA of that URL (default: this context's)")
	utilruntime.Must(c.RegisterFlagCompletionFunc("edge", completePools(a)))
	o.output = a.outputFlags(c)
	return c
}

// tokenResult is what `token create` made.
type tokenResult struct {
	Member         string `json:"member,omitempty"`
	EdgePool       string `json:"edgePool,omitempty"`
	Zone           string `json:"zone,omitempty"`
	Server         string `json:"server"`
	ExpirationTime string `json:"expirationTime"`
	Token          string `json:"token"`
	Command        string `json:"command"`
}

func (o *tokenOptions) run(ctx context.Context, given []string) error {
	if err := o.validate(given); err != nil {
		return err
	}
	hub, config, err := o.clientOf(o.kubeconfig)
	if err != nil {
		return err
	}
	token := registration.JoinToken{EdgePool: o.pool, Zone: o.zone}
	if token.Server, token.CA, err = o.whereTheHubIs(config); err != nil {
		return err
	}
	var account *corev1.ServiceAccount
	if o.pool != "" {
		account, err = o.edgeAccount(ctx, hub)
	} else {
		token.Member, token.Zone = given[0], ""
		account, err = o.memberAccount(ctx, hub, given[0])
	}
	if err != nil {
		return err
	}
	ends, err := o.issue(ctx, hub, account, &token)
	if err != nil {
		return err
	}
	text, err := token.Encode()
	if err != nil {
		return err
	}
	address, err := edgesDial(ctx, hub, o.namespace())
	if err != nil {
		return err
	}
	return o.print(tokenResult{
		Member: token.Member, EdgePool: token.EdgePool, Zone: token.Zone, Server: token.Server,
		ExpirationTime: ends.UTC().Format(time.RFC3339), Token: text,
	}, address)
}

func (o *tokenOptions) validate(given []string) error {
	switch {
	case (o.pool == "") == (len(given) == 0):
		return usage("name either a member, like crossway token create us-west --region us, or a pool of edges with --edge")
	case o.pool != "" && o.zone == "":
		return usage("--edge %s needs --zone: the zone of these edges is part of their certificate", o.pool)
	case o.pool != "" && (o.region != "" || len(o.cidrs) > 0 || len(o.namespaces) > 0):
		return usage("--region, --endpoint-cidr and --export-namespace are a member's; the region of edges is their EdgePool's")
	case o.life < minTokenLife || o.life > maxTokenLife:
		return usage("--ttl %s: use %s to %s", o.life, minTokenLife, maxTokenLife)
	}
	return nil
}

// whereTheHubIs returns the URL and the CA with which the other cluster reaches the
// hub's API server.
func (o *tokenOptions) whereTheHubIs(config *rest.Config) (server string, ca []byte, err error) {
	server, ca = config.Host, config.CAData
	if o.server != "" {
		server = o.server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", nil, usage("%q is not the URL of an API server, like https://hub.example:6443: name it with --hub-server", server)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); o.server == "" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()) {
		return "", nil, usage("this context's URL of the hub, %s, means this machine: name the one that other clusters reach with --hub-server", server)
	}
	if file := o.caFile; file != "" || len(ca) == 0 && config.CAFile != "" {
		if file == "" {
			file = config.CAFile
		}
		if ca, err = os.ReadFile(file); err != nil {
			return "", nil, fmt.Errorf("read the hub's CA: %w", err)
		}
	}
	if len(ca) == 0 {
		return "", nil, usage("this context has no CA of the hub's API server: name a file with --hub-ca")
	}
	return server, ca, nil
}

// memberAccount is the join account of a member, whose MemberCluster it makes where
// there is none.
func (o *tokenOptions) memberAccount(ctx context.Context, hub client.Client, name string) (*corev1.ServiceAccount, error) {
	var m v1alpha1.MemberCluster
	err := hub.Get(ctx, client.ObjectKey{Name: name}, &m)
	switch {
	case apierrors.IsNotFound(err):
		if err := o.createMember(ctx, hub, name, &m); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("read MemberCluster %q: %w", name, err)
	case m.DeletionTimestamp != nil:
		return nil, fmt.Errorf("MemberCluster %q is being deleted; wait until it is gone", name)
	case o.region != "" && o.region != m.Spec.Region, o.zone != "" && o.zone != m.Spec.Zone:
		return nil, fmt.Errorf("MemberCluster %q exists, in region %q and zone %q; leave out --region and --zone, or change it with kubectl edit membercluster %s", name, m.Spec.Region, m.Spec.Zone, name)
	case len(o.cidrs) > 0 || len(o.namespaces) > 0:
		return nil, fmt.Errorf("MemberCluster %q exists; give --endpoint-cidr and --export-namespace to crossway accept %s", name, name)
	}
	if has := registration.InForce(&m); has != nil {
		o.progress.say("Cluster %s has joined as %s on %s. It may join again with this token. For another one: crossway revoke %s, and then make its token.",
			has.ClusterUID, name, has.IssuedTime.UTC().Format(time.DateOnly), name)
	}
	return registration.NewMemberJoinAccount(&m, registration.NewCredentialID(), time.Now().Add(o.life)), nil
}

func (o *tokenOptions) createMember(ctx context.Context, hub client.Client, name string, m *v1alpha1.MemberCluster) error {
	if o.region == "" {
		return usage("MemberCluster %q does not exist yet: name its --region", name)
	}
	*m = v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}}
	m.Spec.Region, m.Spec.Zone, m.Spec.EndpointCIDRs = o.region, o.zone, o.cidrs
	for _, n := range o.namespaces {
		m.Spec.Exports.Namespaces = append(m.Spec.Exports.Namespaces, v1alpha1.NamespacePattern(n))
	}
	if err := hub.Create(ctx, m); err != nil {
		return fmt.Errorf("create MemberCluster: %w", err)
	}
	o.progress.say("MemberCluster %s created; it is not accepted yet", name)
	return nil
}

func (o *tokenOptions) edgeAccount(ctx context.Context, hub client.Client) (*corev1.ServiceAccount, error) {
	var pools v1alpha1.EdgePoolList
	if err := hub.List(ctx, &pools); err != nil {
		return nil, fmt.Errorf("list EdgePools: %w", err)
	}
	i := slices.IndexFunc(pools.Items, func(p v1alpha1.EdgePool) bool { return p.Name == o.pool })
	if i < 0 {
		return nil, registration.CheckEdge(registration.EdgeIdentity{Pool: o.pool, Region: "<region>", Zone: o.zone}, pools.Items)
	}
	pool := &pools.Items[i]
	if err := (registration.EdgeIdentity{Pool: pool.Name, Region: pool.Spec.Region, Zone: o.zone}).Validate(); err != nil {
		return nil, usage("%w", err)
	}
	return registration.NewEdgeJoinAccount(pool, o.zone, registration.NewCredentialID(), time.Now().Add(o.life)), nil
}

// issue makes a join account and a token of it.
func (o *tokenOptions) issue(ctx context.Context, hub client.Client, account *corev1.ServiceAccount, token *registration.JoinToken) (ends time.Time, err error) {
	err = hub.Create(ctx, account)
	switch {
	case apierrors.IsNotFound(err):
		return ends, fmt.Errorf("namespace %s does not exist: run crossway hub init", v1alpha1.MembersNamespace)
	case err != nil:
		return ends, fmt.Errorf("create ServiceAccount: %w", err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(o.life.Seconds()))}}
	if err := hub.SubResource("token").Create(ctx, account, request); err != nil {
		return ends, errors.Join(fmt.Errorf("create token: %w", err), client.IgnoreNotFound(hub.Delete(ctx, account)))
	}
	token.Token = request.Status.Token
	return request.Status.ExpirationTimestamp.Time, nil
}

// edgesDial is the address of the hub's Service, as far as its load balancer says it.
func edgesDial(ctx context.Context, hub client.Client, namespace string) (string, error) {
	const unknown = "<address of Service crossway-hub>"
	var service corev1.Service
	err := hub.Get(ctx, client.ObjectKey{Namespace: namespace, Name: hubRelease}, &service)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return unknown, nil
	}
	if err != nil {
		return "", fmt.Errorf("read Service %s: %w", hubRelease, err)
	}
	if all := service.Status.LoadBalancer.Ingress; len(all) > 0 {
		return cmp.Or(all[0].Hostname, all[0].IP, unknown), nil
	}
	return unknown, nil
}

func (o *tokenOptions) print(r tokenResult, hubAddress string) error {
	r.Command = "crossway join --context <its context> --token " + r.Token
	where := "the cluster of " + r.Member
	if r.EdgePool != "" {
		r.Command = "crossway join --edge --context <its context> --hub-address " + hubAddress + " --token " + r.Token
		where = "the cluster where these edges run"
	}
	return o.output.print("JoinToken", &r, func(out io.Writer) error {
		fmt.Fprintf(out, "With a kubeconfig for %s, until %s:\n\n  %s\n", where, r.ExpirationTime, r.Command)
		if r.Member != "" {
			fmt.Fprintf(out, "\nThen here, once it has asked:\n\n  crossway accept %s\n", r.Member)
		}
		return nil
	})
}
