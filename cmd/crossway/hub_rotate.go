package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/registration"
)

// rotateOptions are the flags of `crossway hub rotate-ca`.
type rotateOptions struct {
	*app
	finish, force bool
	wait          time.Duration
	output        *output
}

func rotateCACommand(a *app) *cobra.Command {
	o := &rotateOptions{app: a}
	c := &cobra.Command{
		Use:   "rotate-ca",
		Short: "Replaces the CA that signs the certificates of edges and of the hub",
		Long: `Replaces the edge CA in steps, without a failed request. Without a flag, the hub
and the edges come to trust a second CA, which signs from a minute later on, and edges
renew their certificates. With --finish, the old CA is trusted no more as soon as no
edge uses it; until then the request stands, and the command says who does.`,
		Example: `  crossway hub rotate-ca --context hub
  crossway hub rotate-ca --context hub --finish`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.BoolVar(&o.finish, "finish", false, "end the trust in the old CA, once no connected edge uses it")
	f.BoolVar(&o.force, "force", false, "end it now, whoever uses it: for a CA whose key was stolen; edges that have not renewed must join again")
	f.DurationVar(&o.wait, "wait", 5*time.Minute, "how long to wait until the hub has done it; 0: not at all")
	o.output = a.outputFlags(c)
	return c
}

// rotateResult is what `hub rotate-ca` came to.
type rotateResult struct {
	CA      string   `json:"ca"`
	OldCA   string   `json:"oldCA,omitempty"`
	UsedBy  []string `json:"usedBy,omitempty"`
	Done    bool     `json:"done"`
	Request string   `json:"request"`
}

func (o *rotateOptions) run(ctx context.Context) error {
	hub, err := o.hub()
	if err != nil {
		return err
	}
	result := rotateResult{Request: o.request()}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace(), Name: registration.EdgeCASecret}}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, registration.AnnotationRotate, result.Request)
	if err := hub.Patch(ctx, secret, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		return fmt.Errorf("ask for it in Secret %s/%s: %w; who rotates the CA needs Role crossway-edge-signer", secret.Namespace, secret.Name, err)
	}
	if o.wait > 0 {
		if err := o.progress.wait(ctx, "edge CA", o.wait, func(ctx context.Context) (string, bool, error) { return o.state(ctx, hub, &result) }); err != nil {
			return fmt.Errorf("%w; the request stands, and the hub's Events and log say how it goes on", err)
		}
	}
	return o.output.print("Rotation", &result, func(out io.Writer) error {
		switch {
		case !result.Done:
			_, err = fmt.Fprintf(out, "asked the hub: %s\n", result.Request)
		case result.OldCA != "":
			_, err = fmt.Fprintf(out, "edge CA %s signs; %s is trusted until: crossway hub rotate-ca --finish\n", result.CA, result.OldCA)
		default:
			_, err = fmt.Fprintf(out, "edge CA %s is the only one\n", result.CA)
		}
		return err
	})
}

func (o *rotateOptions) request() string {
	switch {
	case o.force:
		return registration.RotateForce
	case o.finish:
		return registration.RotateFinish
	}
	return registration.RotateStart
}

// state is where the rotation is.
func (o *rotateOptions) state(ctx context.Context, hub client.Client, result *rotateResult) (now string, done bool, err error) {
	var secret corev1.Secret
	if err := hub.Get(ctx, client.ObjectKey{Namespace: o.namespace(), Name: registration.EdgeCASecret}, &secret); err != nil {
		return "", false, fmt.Errorf("read the edge CA: %w", err)
	}
	ca := registration.CAOf(secret.Data)
	result.CA, result.OldCA, result.UsedBy = ca.Name(), registration.CertificateName(ca.Old), nil
	asked := secret.Annotations[registration.AnnotationRotate] != ""
	switch {
	case len(ca.Next.Certificate) > 0:
		return fmt.Sprintf("step 1 of 3: %s is trusted beside %s", registration.CertificateName(ca.Next.Certificate), result.CA), false, nil
	case asked && result.OldCA == "":
		return "the hub has not answered yet", false, nil
	case result.OldCA == "":
		result.Done = true
		return "one CA, " + result.CA, true, nil
	case !o.finish && !o.force:
		result.Done = !asked
		return fmt.Sprintf("step 2 of 3: %s signs", result.CA), !asked, nil
	}
	if result.UsedBy, err = usersOfCA(ctx, hub, result.OldCA); err != nil {
		return "", false, err
	}
	return fmt.Sprintf("step 3 of 3 waits for credentials that %s signed: %s", result.OldCA, list(result.UsedBy)), false, nil
}

// usersOfCA are the credentials of connected edges that a CA signed, as EdgePools say.
func usersOfCA(ctx context.Context, hub client.Client, ca string) ([]string, error) {
	var pools v1alpha1.EdgePoolList
	if err := hub.List(ctx, &pools); err != nil {
		return nil, fmt.Errorf("list EdgePools: %w", err)
	}
	var users []string
	for _, p := range pools.Items {
		for _, c := range p.Status.Credentials {
			if c.CA == ca {
				users = append(users, fmt.Sprintf("%s of EdgePool %s (%d edges)", c.ID, p.Name, c.Edges))
			}
		}
	}
	return users, nil
}
