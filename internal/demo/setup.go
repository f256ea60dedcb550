package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab"
)

// New makes a Story.
func New(fleet *lab.Lab, out io.Writer) *Story {
	return &Story{Lab: fleet, Out: out, Figures: Figures{}, Times: Full, addresses: map[string]string{}}
}

// SetUp creates what users have in their clusters before the first step:
// namespaces, a Gateway with its certificate, routes, and applications.
func (s *Story) SetUp(ctx context.Context) error {
	began := time.Now()
	fmt.Fprintln(s.Out, "setting up the story: namespaces, Gateway, routes, applications ...")
	if err := s.Lab.Hub.Apply(ctx, render("hub.yaml", nil)); err != nil {
		return err
	}
	if err := s.certificate(ctx); err != nil {
		return err
	}
	if err := each(clusters, func(name string) error {
		return s.namespaces(ctx, name)
	}); err != nil {
		return err
	}
	apps := append(s.store("v1", 0),
		app{"shop", "checkout", "us-west", "v1", 2, 0}, app{"shop", "checkout", "eu-west", "v1", 2, 0},
		app{"site", "blue", "us-west", "v1", 4, 0}, app{"site", "green", "us-east", "v1", 4, 0})
	if err := s.deploy(ctx, apps...); err != nil {
		return err
	}
	for _, a := range apps {
		if err := s.exportFrom(ctx, a.Namespace, a.Name, a.Cluster); err != nil {
			return err
		}
	}
	if err := s.awaitAddresses(ctx); err != nil {
		return err
	}
	for _, region := range []string{"us", "eu"} {
		for _, host := range []string{"store.example.com", "checkout.example.com", "site.example.com"} {
			if err := s.AwaitAnswers(ctx, s.Client(region, host, 20), host+" in region "+region); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(s.Out, "ready after %s\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}

func (s *Story) namespaces(ctx context.Context, cluster string) error {
	c, err := s.Lab.Cluster(cluster)
	if err != nil {
		return err
	}
	return c.Apply(ctx, []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: site}\n"))
}

// awaitAddresses waits until the Gateway is programmed, and reads its address
// in each region.
func (s *Story) awaitAddresses(ctx context.Context) error {
	if _, err := s.Lab.Hub.Kubectl(ctx, nil, "wait", "-n", "infra", "gateway/shared", "--for=condition=Programmed", "--timeout=60s"); err != nil {
		return err
	}
	out, err := s.Lab.Hub.Kubectl(ctx, nil, "get", "edgepools", "-o",
		`jsonpath={range .items[*]}{.spec.region}{" "}{range .status.allocations[?(@.gateway.name=="shared")]}{.address}{end}{"\n"}{end}`)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) == 2 {
			s.addresses[fields[0]] = fields[1]
		}
	}
	for _, region := range s.Lab.Regions {
		if s.addresses[region] == "" {
			return fmt.Errorf("the Gateway has no address in region %s: %q", region, out)
		}
	}
	return nil
}

// certificate makes the Gateway's certificate, or renews it, as cert-manager would.
func (s *Story) certificate(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"},
		DNSNames: []string{"*.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(certificate)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "example-com"},
		Type:       corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		},
	}
	secrets := s.Lab.Hub.Client.CoreV1().Secrets("infra")
	if _, err = secrets.Create(ctx, secret, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
	}
	return err
}
