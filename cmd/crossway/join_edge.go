package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/registration"
)

// edgeRelease is the release of charts/edge for a pool, and the name of its Deployment.
func edgeRelease(pool string) string { return "crossway-edge-" + pool }

// signTimeout is how long the hub may take to sign: its leader does it at once.
const signTimeout = time.Minute

// joinEdges has the hub sign a certificate, writes it, and installs charts/edge.
func (o *joinOptions) joinEdges(ctx context.Context, cluster client.Client, token *registration.JoinToken, given map[string]any) error {
	if token == nil {
		return usage("name the token with --token: make one at the hub with crossway token create --edge <pool> --zone <zone>")
	}
	result := joinResult{EdgePool: token.EdgePool}
	last, err := hasRelease(o.kubeconfig, edgeRelease(token.EdgePool))
	if err != nil {
		return err
	}
	if o.hub == "" && !last && !hasHubAddress(given) {
		return usage("name the address of the hub's Service crossway-hub, which edges dial, with --hub-address")
	}
	secret, id, err := o.certificate(ctx, *token)
	if err != nil {
		return err
	}
	if err := ensureNamespace(ctx, cluster, o.namespace()); err != nil {
		return err
	}
	if err := writeSecret(ctx, cluster, secret); err != nil {
		return fmt.Errorf("write Secret %s: %w", secret.Name, err)
	}
	result.Steps = append(result.Steps, step{"Secret " + secret.Name, "written: " + id.String() + ", credential " + id.Credential})
	values := map[string]any{"pool": id.Pool, "region": id.Region, "zone": id.Zone}
	if o.hub != "" {
		values["hub"] = map[string]any{"address": o.hub}
	}
	name := edgeRelease(token.EdgePool)
	o.progress.say("charts/edge in namespace %s ...", o.namespace())
	did, err := installRelease(ctx, o.kubeconfig, chartRelease{name: name, chart: "edge", values: merged(values, given)})
	if err != nil {
		return err
	}
	result.Steps = append(result.Steps, step{"release " + name, did})
	if o.wait > 0 {
		if err := o.progress.wait(ctx, "the edges", o.wait, rolledOut(cluster, client.ObjectKey{Namespace: o.namespace(), Name: name})); err != nil {
			return fmt.Errorf("%w; see kubectl -n %s logs deployment/%s", err, o.namespace(), name)
		}
		result.Steps = append(result.Steps, step{"edges", "ready"})
	}
	return o.printJoin(&result)
}

func hasHubAddress(given map[string]any) bool {
	hub, ok := given["hub"].(map[string]any)
	return ok && hub["address"] != nil
}

// merged are values with those of over in their place.
func merged(values, over map[string]any) map[string]any {
	for key, value := range over {
		inner, isMap := value.(map[string]any)
		under, wasMap := values[key].(map[string]any)
		if isMap && wasMap {
			value = merged(under, inner)
		}
		values[key] = value
	}
	return values
}

// certificate makes a key here, and has the hub sign it with the token.
func (o *joinOptions) certificate(ctx context.Context, token registration.JoinToken) (*corev1.Secret, registration.EdgeIdentity, error) {
	none := registration.EdgeIdentity{}
	claims, err := registration.ReadToken(token.Token)
	if err != nil {
		return nil, none, err
	}
	pool, id, ok := registration.ParseEdgeJoinUser(claims.User)
	if !ok || pool != token.EdgePool {
		return nil, none, usage("the token is not one for edges of pool %s: make a new one with crossway token create --edge", token.EdgePool)
	}
	hub, err := client.New(hubConfig(token), client.Options{Scheme: o.scheme})
	if err != nil {
		return nil, none, fmt.Errorf("reach the hub: %w", err)
	}
	key, request, err := registration.NewEdgeRequest(rand.Reader)
	if err != nil {
		return nil, none, err
	}
	answer, err := o.sign(ctx, hub, registration.EdgeRequestName(pool, id), request)
	if err != nil {
		return nil, none, err
	}
	data, err := registration.EdgeSecretData(key, answer)
	if err != nil {
		return nil, none, err
	}
	identity, err := identityOf(data[corev1.TLSCertKey])
	if err != nil {
		return nil, none, err
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.namespace(), Name: registration.EdgeSecretName(pool),
			Labels: map[string]string{registration.LabelEdgePool: pool, partOf: "crossway"},
		},
		Type: corev1.SecretTypeTLS, Data: data,
	}, identity, nil
}

// sign asks the hub for a certificate and returns its answer.
func (o *joinOptions) sign(ctx context.Context, hub client.Client, name string, request []byte) (answer []byte, err error) {
	csr := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: registration.EdgeSigner, Request: request,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}
	err = hub.Create(ctx, csr)
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil, errors.New("this token was used already: make a new one with crossway token create --edge")
	case apierrors.IsUnauthorized(err):
		return nil, errors.New("the hub does not know this token any more: it was used, or it has ended; make a new one with crossway token create --edge")
	case err != nil:
		return nil, fmt.Errorf("ask the hub for a certificate: %w", err)
	}
	err = o.progress.wait(ctx, "the hub's signature", signTimeout, func(ctx context.Context) (string, bool, error) {
		if err := hub.Get(ctx, client.ObjectKeyFromObject(csr), csr); err != nil {
			return "", false, fmt.Errorf("read the hub's answer: %w", err)
		}
		for _, c := range csr.Status.Conditions {
			if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
				return "", false, fmt.Errorf("the hub refuses these edges (%s): %s", c.Reason, c.Message)
			}
		}
		return "asked", len(csr.Status.Certificate) > 0, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w; is the hub ready? See crossway check", err)
	}
	return csr.Status.Certificate, nil
}

// identityOf is who the first certificate of a PEM chain says an edge is.
func identityOf(chain []byte) (registration.EdgeIdentity, error) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return registration.EdgeIdentity{}, errors.New("the hub's answer has no certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return registration.EdgeIdentity{}, fmt.Errorf("certificate of the hub: %w", err)
	}
	return registration.EdgeIdentityOf(c)
}
