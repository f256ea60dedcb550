package agent

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/program"
	"crossway.dev/crossway/pkg/registration"
)

const (
	// credentialLife is what is asked for. The hub's cluster may give less.
	credentialLife = 24 * time.Hour
	// askInterval is between two looks at a request that waits: joining takes no longer than that after the hub's word.
	askInterval = time.Second
	// idleInterval is between two looks while there is nothing to do but to renew in time.
	idleInterval = 10 * time.Second
	// answerTime is how long the hub may take to answer before anybody is told.
	answerTime = 2 * time.Second
	// refusedInterval is between two tries of what the hub refused.
	refusedInterval = 15 * time.Second
	// leaveTimeout is how long withdrawing all that the agent made may take at once.
	leaveTimeout = time.Minute
	// requestTimeout is how long one request to the hub may take.
	requestTimeout = 10 * time.Second
)

// wish is a credential that the agent wants: by a join token, or a new one by its own.
type wish struct {
	asked
	config     *rest.Config // with which it asks
	purpose    string       // pending.For
	id         string       // of the credential; "": a new one
	joinedBy   string
	renewal    bool
	credential *Credential // of a renewal
}

// step brings this cluster nearer to a credential that lasts, and says when to come again.
func (a *Agent) step(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	have, _ := a.secrets.now()
	token := a.secrets.token()
	var w wish
	switch {
	case have == nil && a.secrets.left(token), a.secrets.leaving(): // leaves says so
		return idleInterval
	case token != "" && (have == nil || have.JoinedBy != digest(token)):
		decoded, err := registration.DecodeJoinToken(token)
		if err == nil && decoded.Member == "" {
			err = fmt.Errorf("it is for edges of pool %s, not for a member", decoded.EdgePool)
		}
		if err != nil {
			a.status.say(ctx, topicJoin, state{reason: ReasonTokenUnreadable, blocks: have == nil, wrong: true, message: fmt.Sprintf("the token in Secret %s cannot be used: %v", JoinSecret, err)})
			return refusedInterval
		}
		w = joinBy(decoded, digest(token))
	case have == nil:
		a.status.say(ctx, topicJoin, state{reason: "NotJoined", blocks: true, wrong: true,
			message: fmt.Sprintf("this cluster has no credential of a hub: make a token there (crossway token create) and give it to this cluster (crossway join), which writes Secret %s", JoinSecret)})
		return idleInterval
	case have.ClusterUID != a.uid: // a copy: the claim says so
		return idleInterval
	case a.due(have):
		w = renewalOf(have, a.secrets.configNow())
	default:
		a.status.say(ctx, topicJoin, state{reason: ReasonJoined, message: fmt.Sprintf("this cluster is %s in the fleet of the hub at %s", have.Member, have.Server)})
		return idleInterval
	}
	now, again := a.ask(ctx, w)
	if now.reason == "" { // the hub has not had the time to answer
		return again
	}
	now.blocks = now.blocks && have == nil // a cluster with a credential works on with it
	a.status.say(ctx, topicJoin, now)
	return again
}

func joinBy(t registration.JoinToken, purpose string) wish {
	w := wish{
		asked:   asked{server: t.Server, member: fleet.ClusterName(t.Member), what: "the join token"},
		config:  &rest.Config{Host: t.Server, BearerToken: t.Token, TLSClientConfig: rest.TLSClientConfig{CAData: t.CA}},
		purpose: purpose, joinedBy: purpose,
	}
	if claims, err := registration.ReadToken(t.Token); err == nil { // the hub judges it
		w.until = claims.Ends
	}
	return w
}

func renewalOf(c *Credential, config *rest.Config) wish {
	w := wish{
		asked:  asked{server: c.Server, member: c.Member, what: "this cluster's credential"},
		config: config, purpose: c.ID, id: c.ID, joinedBy: c.JoinedBy, renewal: true, credential: c,
	}
	_, w.until, _ = c.life()
	return w
}

// due tells whether two thirds of a credential's life are over, by the hub's clock.
func (a *Agent) due(c *Credential) bool {
	from, until, err := c.life()
	return err != nil || !a.hubNow().Before(from.Add(until.Sub(from)*2/3))
}

// ask asks for a credential or looks what became of the request, and stores what there is.
func (a *Agent) ask(ctx context.Context, w wish) (now state, again time.Duration) {
	defer func() { // of what the answers said
		if !a.clock.called.Load() {
			return
		}
		a.clocks = a.clocks.With(registration.Clocks{Member: a.now(), Hub: a.hubNow()})
		a.status.say(ctx, topicClock, clockState(a.clocks.Told()))
	}()
	hub, err := a.client(w.config)
	if err == nil && w.renewal && w.credential.Token != "" {
		return a.takeToken(ctx, hub, w, w.id)
	}
	var request *certificatesv1.CertificateSigningRequest
	var sent pending
	if err == nil {
		sent, err = a.pendingFor(ctx, w)
	}
	if err == nil && sent.Denied != "" {
		return w.refusal(sent.Denied), idleInterval
	}
	if err == nil {
		request, err = a.requestOf(ctx, hub, w, sent)
	}
	if err != nil {
		w.now, w.atHub = a.now(), a.hubNow()
		return w.failed(err), refusedOr(err)
	}
	return a.answered(ctx, hub, w, sent, request)
}

// refusedOr is how long to wait after an error: a hub that is not there yet may be there soon.
func refusedOr(err error) time.Duration {
	if apierrors.IsUnauthorized(err) {
		return refusedInterval
	}
	return askInterval
}

// pendingFor is the request that was stored for a wish, or a new one.
func (a *Agent) pendingFor(ctx context.Context, w wish) (pending, error) {
	if p := readPending(a.secrets.stored()); p.For == w.purpose && len(p.Key) > 0 {
		return p, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pending{}, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pending{}, fmt.Errorf("encode the key: %w", err)
	}
	p := pending{
		For: w.purpose, ID: cmp.Or(w.id, registration.NewCredentialID()), CSR: nameOfRequest(w.member),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
	return p, a.secrets.storePending(ctx, p)
}

// nameOfRequest is a new name of a CertificateSigningRequest.
func nameOfRequest(member fleet.ClusterName) string {
	return "crossway-" + string(member) + "-" + registration.NewCredentialID()
}

// requestOf is the request on the hub, which is sent if it is not there.
func (a *Agent) requestOf(ctx context.Context, hub client.Client, w wish, p pending) (*certificatesv1.CertificateSigningRequest, error) {
	request := &certificatesv1.CertificateSigningRequest{}
	err := hub.Get(ctx, client.ObjectKey{Name: p.CSR}, request)
	if err == nil || !apierrors.IsNotFound(err) {
		return request, err
	}
	if request, err = a.newRequest(ctx, w, p); err != nil {
		return nil, err
	}
	return request, hub.Create(ctx, request)
}

func (a *Agent) newRequest(ctx context.Context, w wish, p pending) (*certificatesv1.CertificateSigningRequest, error) {
	block, _ := pem.Decode(p.Key)
	if block == nil {
		return nil, fmt.Errorf("the key in Secret %s is not PEM", CredentialSecret)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse the key in Secret %s: %w", CredentialSecret, err)
	}
	var nodes corev1.NodeList
	if err := a.member.List(ctx, &nodes); err != nil {
		return nil, ownError{fmt.Errorf("list Nodes, for the pod ranges of this cluster: %w", err)}
	}
	subject := pkix.Name{CommonName: registration.MemberUser(w.member, p.ID), Organization: []string{v1alpha1.MembersGroup}}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: p.CSR, Annotations: map[string]string{
			v1alpha1.AnnotationClusterUID: a.uid, v1alpha1.AnnotationAgentTime: text(a.now()), v1alpha1.AnnotationEndpointCIDRs: strings.Join(registration.ProposedCIDRs(nodes.Items), ","),
		}},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientSignerName, ExpirationSeconds: ptr.To(int32(credentialLife / time.Second)),
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, nil
}

// answered does what the hub says about a request.
func (a *Agent) answered(ctx context.Context, hub client.Client, w wish, p pending, request *certificatesv1.CertificateSigningRequest) (now state, again time.Duration) {
	for _, c := range request.Status.Conditions {
		switch {
		case c.Type == certificatesv1.CertificateDenied, c.Type == certificatesv1.CertificateFailed:
			return a.denied(ctx, w, p, c)
		case c.Type == certificatesv1.CertificateApproved && c.Reason == condition.ReasonAccountToken:
			return a.takeToken(ctx, hub, w, p.ID)
		case c.Type == certificatesv1.CertificateApproved && len(request.Status.Certificate) == 0:
			if a.hubNow().Sub(c.LastTransitionTime.Time) < answerTime {
				return state{}, askInterval
			}
			return state{reason: ReasonWaitingForCertificate, blocks: true, message: fmt.Sprintf("the hub at %s has let this cluster in, and its Kubernetes has not signed CertificateSigningRequest %s yet; "+
				"where no signer of client certificates runs, as on EKS, install charts/hub with joining.credential=token", w.server, p.CSR)}, askInterval
		}
	}
	switch {
	case len(request.Status.Certificate) > 0:
		return a.keep(ctx, w, &Credential{ID: p.ID, Certificate: request.Status.Certificate, Key: p.Key})
	case a.hubNow().Sub(request.CreationTimestamp.Time) < answerTime:
		return state{}, askInterval
	case w.renewal:
		return state{reason: "WaitingForRenewal", message: fmt.Sprintf("the hub at %s has not renewed this cluster's credential yet, which ends at %s: is deployment crossway-hub there running?", w.server, text(w.until))}, askInterval
	}
	return state{reason: ReasonWaitingForAcceptance, blocks: true, message: fmt.Sprintf("this cluster waits to be let in as %s: on the hub, compare its UID %s with status.joinRequest.clusterUID of MemberCluster %s and run: crossway accept %s",
		w.member, a.uid, w.member, w.member)}, askInterval
}

// denied takes note of a refusal. Nothing is asked again with that token, but for a refusal
// that may not last: then the same credential is asked for by another request.
func (a *Agent) denied(ctx context.Context, w wish, p pending, c certificatesv1.CertificateSigningRequestCondition) (state, time.Duration) {
	said := fmt.Sprintf("%s (%s)", c.Message, c.Reason)
	if c.Reason == condition.ReasonClockDiffers || c.Type == certificatesv1.CertificateFailed || w.renewal {
		p.CSR = nameOfRequest(w.member)
	} else {
		p.Denied = said
	}
	if err := a.secrets.storePending(ctx, p); err != nil {
		return w.failed(err), refusedInterval
	}
	return w.refusal(said), refusedInterval
}

// takeToken takes a token of the account that the hub made for a credential.
func (a *Agent) takeToken(ctx context.Context, hub client.Client, w wish, id string) (state, time.Duration) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MembersNamespace, Name: registration.MemberAccount(w.member, id)}}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(credentialLife / time.Second))}}
	if err := hub.SubResource("token").Create(ctx, account, request); err != nil {
		w.now, w.atHub = a.now(), a.hubNow()
		return w.failed(err), refusedOr(err)
	}
	return a.keep(ctx, w, &Credential{ID: id, Token: request.Status.Token})
}

// keep stores a credential that the hub gave out.
func (a *Agent) keep(ctx context.Context, w wish, c *Credential) (state, time.Duration) {
	c.Server, c.CA, c.Member, c.ClusterUID, c.JoinedBy = w.config.Host, w.config.CAData, w.member, a.uid, w.joinedBy
	if err := a.secrets.store(ctx, c.Data()); err != nil {
		return w.failed(err), askInterval
	}
	from, until, err := c.life()
	if err != nil {
		return state{reason: "NotReadable", blocks: true, wrong: true, message: fmt.Sprintf("the hub at %s gave out what cannot be read: %v", w.server, err)}, refusedInterval
	}
	a.status.log.Info("this cluster has a new credential of the hub", "cluster", w.member, "id", c.ID, "from", from, "until", until)
	return state{reason: ReasonJoined, message: fmt.Sprintf("this cluster is %s in the fleet of the hub at %s", w.member, w.server)}, idleInterval
}

// client is a client for the hub, without a cache. What it is answered is read for the time there.
func (a *Agent) client(config *rest.Config) (client.Client, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = a.userAgent
	config.Wrap(a.clock.reads)
	mapper, err := program.Mapper(a.scheme, hubKinds())(nil, nil)
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: a.scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("client for the hub: %w", err)
	}
	return c, nil
}
