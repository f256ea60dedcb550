package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

// edgeOptions are the flags of `crossway edge certificate`.
type edgeOptions struct {
	*app
	identity     registration.EdgeIdentity
	valid        time.Duration
	secretName   string
	hubNamespace string
	output       *output
}

func edgeCommand(a *app) *cobra.Command {
	return group("edge", "Edges: the Envoys of a region", certificateCommand(a), renewCommand(a))
}

func certificateCommand(a *app) *cobra.Command {
	o := &edgeOptions{app: a}
	c := &cobra.Command{
		Use:   "certificate",
		Short: "Signs the client certificate of edges",
		Long: `Signs a client certificate with the hub's edge CA and writes it to the Secret
that charts/edge mounts. The certificate has the EdgePool, region and zone of the
edges. The hub takes these from nowhere else.

With --output the Secret is printed instead, for edges in another cluster.`,
		Example: `  crossway edge certificate --pool us --region us --zone us-a
  crossway edge certificate --pool eu --region eu --zone eu-a --output yaml | kubectl --context eu apply -f -`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.identity.Pool, "pool", "", "EdgePool of the edges (required)")
	f.StringVar(&o.identity.Region, "region", "", "region of the edges, the EdgePool's (required)")
	f.StringVar(&o.identity.Zone, "zone", "", "zone of the edges (required)")
	f.DurationVar(&o.valid, "valid", registration.DefaultEdgeLife, "how long the certificate is valid; never longer than the CA")
	f.StringVar(&o.secretName, "secret-name", "", "Secret to write, in --namespace (default crossway-edge-<pool>)")
	f.StringVar(&o.hubNamespace, "hub-namespace", v1alpha1.SystemNamespace, "namespace of the hub, where its edge CA is")
	o.output = a.outputFlags(c)
	for _, name := range []string{"pool", "region", "zone"} {
		utilruntime.Must(c.MarkFlagRequired(name))
	}
	return c
}

// run checks the identity against the hub's EdgePools, signs the certificate, and
// writes or prints the Secret.
func (o *edgeOptions) run(ctx context.Context) error {
	if err := errors.Join(o.identity.Validate(), o.validate()); err != nil {
		return err
	}
	hub, err := o.hub()
	if err != nil {
		return err
	}
	var pools v1alpha1.EdgePoolList
	if err := hub.List(ctx, &pools); err != nil {
		return fmt.Errorf("list EdgePools of the hub: %w", err)
	}
	pool, err := registration.PoolOfEdge(o.identity, pools.Items)
	if err != nil {
		return err
	}
	o.identity.PoolUID, o.identity.Credential = string(pool.UID), registration.NewCredentialID()
	ca, err := o.edgeCA(ctx, hub)
	if err != nil {
		return err
	}
	pair, err := registration.NewEdgeCertificate(ca.Issuer(time.Now(), rand.Reader), o.identity, o.valid)
	if err != nil {
		return err
	}
	secret := o.secret(pair, ca)
	if !o.output.asText() {
		return o.output.printObject(secret)
	}
	return o.write(ctx, hub, secret)
}

func (o *edgeOptions) validate() error {
	if o.valid <= 0 || o.valid > registration.MaxEdgeLife {
		return fmt.Errorf("--valid %s: use a time above 0 and of at most %s", o.valid, registration.MaxEdgeLife)
	}
	return nil
}

// edgeCA reads the CA that the hub makes at its first start.
func (o *edgeOptions) edgeCA(ctx context.Context, hub client.Reader) (registration.CA, error) {
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: o.hubNamespace, Name: registration.EdgeCASecret}
	err := hub.Get(ctx, key, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return registration.CA{}, fmt.Errorf("Secret %s does not exist; the hub makes it at its first start: is --context the hub's, and is deployment crossway-hub there ready?", key)
	case apierrors.IsForbidden(err):
		return registration.CA{}, fmt.Errorf("read the edge CA: %w; who signs certificates of edges needs Role crossway-edge-signer in namespace %s", err, o.hubNamespace)
	case err != nil:
		return registration.CA{}, fmt.Errorf("read the edge CA: %w", err)
	}
	return registration.CAOf(secret.Data), nil
}

func (o *edgeOptions) secret(pair registration.Pair, ca registration.CA) *corev1.Secret {
	name := o.secretName
	if name == "" {
		name = registration.EdgeSecretName(o.identity.Pool)
	}
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   o.namespace(),
			Name:        name,
			Labels:      map[string]string{registration.LabelEdgePool: o.identity.Pool, "app.kubernetes.io/part-of": "crossway"},
			Annotations: map[string]string{"crossway.dev/edge-identity": o.identity.String()},
		},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       pair.Certificate,
			corev1.TLSPrivateKeyKey: pair.Key,
			registration.CAKey:      ca.Bundle(),
		},
	}
}

// write creates the Secret, or replaces one that this command made before. Any
// other Secret of that name is an error.
func (o *edgeOptions) write(ctx context.Context, hub client.Client, secret *corev1.Secret) error {
	key := client.ObjectKeyFromObject(secret)
	var existing corev1.Secret
	action, err := "created", hub.Get(ctx, key, &existing)
	switch {
	case apierrors.IsNotFound(err):
		err = hub.Create(ctx, secret)
	case err != nil:
	case existing.Labels[registration.LabelEdgePool] == "" || existing.Type != corev1.SecretTypeTLS:
		return fmt.Errorf("Secret %s exists and is not an edge's certificate; choose another --secret-name, or delete it", key)
	default:
		action = "replaced"
		secret.ResourceVersion = existing.ResourceVersion
		err = hub.Update(ctx, secret)
	}
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("namespace %q does not exist in this cluster; create it, or use --output yaml where the edges run in another cluster", key.Namespace)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", key, err)
	}
	_, err = fmt.Fprintf(o.streams.Out, "Secret %s %s: %s, credential %s, valid for %s\n", key, action, o.identity, o.identity.Credential, o.valid)
	return err
}
