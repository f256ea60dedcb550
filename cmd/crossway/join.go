package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"helm.sh/helm/v3/pkg/cli/values"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/registration"
	"crossway.dev/crossway/pkg/registration/agent"
)

// agentRelease is the release of charts/member-agent, and the name of its Deployment.
const agentRelease = "crossway-member-agent"

// joinOptions are the flags of `crossway join`.
type joinOptions struct {
	*app
	text   string
	edge   bool
	hub    string
	values *values.Options
	wait   time.Duration
	output *output
}

func joinCommand(a *app) *cobra.Command {
	o := &joinOptions{app: a}
	c := &cobra.Command{
		Use:   "join --token TOKEN",
		Short: "Joins a cluster to the fleet, or edges that run in it",
		Long: `Run it with a kubeconfig for the cluster that joins: --context names that cluster
here, not the hub. The token is from crossway token create.

For a member it installs charts/member-agent, with the CRDs of the Multi-Cluster
Services API where they are missing, and waits until the agent has asked the hub. The
hub's admin then lets the cluster in: crossway accept. The agent makes its own key,
which never leaves the cluster.

For edges (--edge) it makes a key, has the hub sign it, and installs charts/edge.

Without a token it brings what is installed to the version of this command.`,
		Example: `  crossway join --context us-west --token eyJzZXJ2ZXIi...
  crossway join --context us-west --token - <token --set image.repository=registry.example/crossway/member-agent
  crossway join --edge --context us-edges --token eyJzZXJ2ZXIi... --hub-address hub.example`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.text, "token", "", "token from crossway token create; -: read it from standard input")
	f.BoolVar(&o.edge, "edge", false, "join edges, not a member")
	f.StringVar(&o.hub, "hub-address", "", "DNS name or address of the hub's Service crossway-hub, which edges dial (with --edge)")
	f.DurationVar(&o.wait, "wait", 2*time.Minute, "how long to wait until the agent, or the edges, are there; 0: not at all")
	o.values, o.output = valueFlags(c), a.outputFlags(c)
	return c
}

// joinResult is what `join` did.
type joinResult struct {
	Member   string `json:"member,omitempty"`
	EdgePool string `json:"edgePool,omitempty"`
	Steps    []step `json:"steps"`
	// Status is what the agent says of its way into the fleet.
	Status string `json:"status,omitempty"`
	Next   string `json:"next,omitempty"`
}

func (o *joinOptions) run(ctx context.Context) error {
	token, err := o.token()
	if err != nil {
		return err
	}
	given, err := o.values.MergeValues(nil)
	if err != nil {
		return usage("%w", err)
	}
	cluster, config, err := o.clientOf(o.kubeconfig)
	if err != nil {
		return err
	}
	if err := checkKubernetes(config); err != nil {
		return err
	}
	if token != nil {
		if err := o.lookAtHub(ctx, config, *token); err != nil {
			return err
		}
	}
	if o.edge {
		return o.joinEdges(ctx, cluster, token, given)
	}
	return o.joinMember(ctx, cluster, token, given)
}

// token reads the token; nil: none was given.
func (o *joinOptions) token() (*registration.JoinToken, error) {
	if o.text == "" {
		return nil, nil
	}
	if o.text == "-" {
		text, err := io.ReadAll(io.LimitReader(o.streams.In, 1<<20))
		if err != nil {
			return nil, fmt.Errorf("read the token: %w", err)
		}
		o.text = string(text)
	}
	token, err := registration.DecodeJoinToken(o.text)
	switch {
	case err != nil:
		return nil, usage("%w", err)
	case o.edge && token.EdgePool == "":
		return nil, usage("this token is for member %s: leave out --edge, or make one with crossway token create --edge", token.Member)
	case !o.edge && token.Member == "":
		return nil, usage("this token is for edges of pool %s: add --edge, or make one with crossway token create <member>", token.EdgePool)
	}
	claims, err := registration.ReadToken(token.Token)
	if err != nil {
		return nil, usage("%w: make a new one with crossway token create", err)
	}
	if now := time.Now(); !now.Before(claims.Ends) {
		return nil, fmt.Errorf("the token ended %s, and it is %s here: make a new one with crossway token create", claims.Ends.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return &token, nil
}

// hubConfig is how the hub's API server is reached with a token.
func hubConfig(token registration.JoinToken) *rest.Config {
	return &rest.Config{Host: token.Server, BearerToken: token.Token, TLSClientConfig: rest.TLSClientConfig{CAData: token.CA}, Timeout: 15 * time.Second}
}

// lookAtHub refuses what could only go wrong: another CA, clocks that are far apart. A hub
// that cannot be reached from here may well be reached from the cluster.
func (o *joinOptions) lookAtHub(ctx context.Context, config *rest.Config, token registration.JoinToken) error {
	var otherName x509.HostnameError
	there, err := timeOf(hubConfig(token))(ctx)
	switch {
	case errors.As(err, &otherName):
		return fmt.Errorf("the certificate of the hub's API server is not for the name in %s: %w; make the token with a URL that it has (crossway token create --hub-server)", token.Server, otherName)
	case isWrongCA(err):
		return fmt.Errorf("the hub's API server at %s is not signed by the CA in the token: %w; is a proxy between, or was the cluster made anew? Make a new token with crossway token create (--hub-ca)", token.Server, err)
	case err != nil && o.edge:
		return fmt.Errorf("reach the hub, which signs the certificate: %w", err)
	case err != nil:
		o.progress.say("The hub cannot be reached from here (%v); the cluster's agent will try.", err)
		return nil
	}
	here, err := timeOf(config)(ctx)
	if err != nil {
		return fmt.Errorf("reach the cluster: %w", err)
	}
	if apart := here.Sub(there).Abs().Round(time.Second); apart > registration.MaxClockDifference {
		return fmt.Errorf("the clocks of this cluster and the hub are %s apart (here %s, there %s): set them by NTP, then join", apart, here.UTC().Format(time.RFC3339), there.UTC().Format(time.RFC3339))
	}
	return nil
}

// isWrongCA tells whether a server's certificate is not what a client trusts.
func isWrongCA(err error) bool {
	var wrong *tls.CertificateVerificationError
	return errors.As(err, &wrong)
}

// joinMember gives the token to the cluster's agent, and installs that.
func (o *joinOptions) joinMember(ctx context.Context, cluster client.Client, token *registration.JoinToken, given map[string]any) error {
	result := joinResult{}
	before, err := agentStatus(ctx, cluster, o.namespace())
	if err != nil {
		return err
	}
	if token == nil && before == "" {
		return usage("name the token with --token: make one at the hub with crossway token create <member>")
	}
	did, err := o.installCRDs(ctx, cluster, mcsAPI())
	if err != nil {
		return err
	}
	result.Steps = append(result.Steps, step{mcsAPI().title, did})
	if token != nil {
		result.Member = token.Member
		if err := o.writeToken(ctx, cluster); err != nil {
			return err
		}
	}
	o.progress.say("charts/member-agent in namespace %s ...", o.namespace())
	if did, err = installRelease(ctx, o.kubeconfig, chartRelease{name: agentRelease, chart: "member-agent", values: given}); err != nil {
		return err
	}
	result.Steps = append(result.Steps, step{"release " + agentRelease, did})
	if o.wait > 0 {
		err := o.progress.wait(ctx, "the agent", o.wait, o.agentAsked(cluster, before, time.Now(), &result))
		if err != nil {
			return fmt.Errorf("%w; see kubectl -n %s logs deployment/%s", err, o.namespace(), agentRelease)
		}
	}
	if waits := strings.HasPrefix(result.Status, agent.ReasonWaitingForAcceptance); waits || result.Status == "" && token != nil {
		result.Next = "at the hub: crossway accept " + result.Member
	}
	return o.printJoin(&result)
}

func (o *joinOptions) printJoin(result *joinResult) error {
	return o.output.print("Joining", result, func(out io.Writer) error {
		if err := printSteps(out, result.Steps); err != nil {
			return err
		}
		if result.Status != "" {
			fmt.Fprintf(out, "\n%s\n", result.Status)
		}
		if result.Next != "" {
			fmt.Fprintf(out, "\nNext, %s\n", result.Next)
		}
		return nil
	})
}

// writeToken gives the token to the agent, which takes a changed one at once.
func (o *joinOptions) writeToken(ctx context.Context, cluster client.Client) error {
	if err := ensureNamespace(ctx, cluster, o.namespace()); err != nil {
		return err
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace(), Name: agent.JoinSecret, Labels: map[string]string{partOf: "crossway"}},
		Data:       map[string][]byte{agent.JoinTokenKey: []byte(strings.TrimSpace(o.text))},
	}
	if err := writeSecret(ctx, cluster, secret); err != nil {
		return fmt.Errorf("write the token: %w", err)
	}
	return nil
}

func ensureNamespace(ctx context.Context, c client.Client, name string) error {
	err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace: %w", err)
	}
	return nil
}

// partOf is a label of all that belongs to Crossway.
const partOf = "app.kubernetes.io/part-of"

// writeSecret creates a Secret, or writes the data of Crossway's own anew.
func writeSecret(ctx context.Context, c client.Client, secret *corev1.Secret) error {
	err := c.Create(ctx, secret)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	var have corev1.Secret
	if err := c.Get(ctx, client.ObjectKeyFromObject(secret), &have); err != nil {
		return err
	}
	if have.Labels[partOf] != secret.Labels[partOf] {
		return fmt.Errorf("Secret %s exists and is not Crossway's (label %s=%s): delete it, or rename what uses it", secret.Name, partOf, secret.Labels[partOf])
	}
	have.Data = secret.Data
	return c.Update(ctx, &have)
}

// agentStatus is what the agent says of its way into the fleet; "": there is no agent.
func agentStatus(ctx context.Context, cluster client.Client, namespace string) (string, error) {
	var secret corev1.Secret
	err := cluster.Get(ctx, client.ObjectKey{Namespace: namespace, Name: agent.CredentialSecret}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read Secret %s: %w", agent.CredentialSecret, err)
	}
	return secret.Annotations[agent.AnnotationStatus], nil
}

// sameStatus is how long a status that was there before may be that of before: an agent
// says a state once.
const sameStatus = 10 * time.Second

// What an agent says once it has asked the hub, and what only a person can mend. Any
// other state may pass by itself.
var (
	askedReasons   = []string{agent.ReasonWaitingForAcceptance, agent.ReasonWaitingForCertificate, agent.ReasonJoined, agent.ReasonWorking}
	refusedReasons = []string{agent.ReasonDenied, agent.ReasonWrongCA, agent.ReasonWrongHubName, agent.ReasonHubCertificateNotValid,
		agent.ReasonTokenUnreadable, agent.ReasonCredentialUnknown, agent.ReasonCredentialEnded, agent.ReasonRefused}
)

// agentAsked is the state of an agent: done once it has asked the hub, or is in the
// fleet already. What the hub or the agent refuses is an error.
func (o *joinOptions) agentAsked(cluster client.Client, before string, began time.Time, result *joinResult) state {
	pods := rolledOut(cluster, client.ObjectKey{Namespace: o.namespace(), Name: agentRelease})
	return func(ctx context.Context) (string, bool, error) {
		now, err := agentStatus(ctx, cluster, o.namespace())
		if err != nil {
			return "", false, err
		}
		if now == "" || now == before && time.Since(began) < sameStatus {
			now, _, err := pods(ctx)
			return now, false, err
		}
		reason, _, _ := strings.Cut(now, ":")
		switch newcomer := result.Member != ""; {
		case !newcomer && reason == agent.ReasonJoined && time.Since(began) < sameStatus: // the hub has not been asked yet
		case !newcomer && reason == agent.ReasonForbidden: // a newcomer's access comes a moment after its credential
			return "", false, errors.New(now)
		case slices.Contains(askedReasons, reason):
			result.Status = now
			return reason, true, nil
		case slices.Contains(refusedReasons, reason):
			return "", false, errors.New(now)
		}
		return now, false, nil
	}
}
