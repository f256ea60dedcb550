package agent

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// secrets are the two Secrets of the agent, followed by their names: it may read no other.
type secrets struct {
	client           corev1client.SecretInterface
	join, credential cache.SharedInformer
	taken            []cache.InformerSynced // of each: what the first list has was taken

	mu      sync.Mutex
	changed chan struct{} // guarded by mu; closed at the next change
	current *Credential   // guarded by mu
	config  *rest.Config  // guarded by mu; of current
	leave   bool          // guarded by mu; the cluster is to leave
}

func newSecrets(config *rest.Config, namespace string) (*secrets, error) {
	client, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for Secrets: %w", err)
	}
	s := &secrets{client: client.Secrets(namespace), changed: make(chan struct{})}
	follow := func(name string, then func(*corev1.Secret)) (cache.SharedInformer, error) {
		list := cache.NewListWatchFromClient(client.RESTClient(), "secrets", namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
		informer := cache.NewSharedInformer(list, &corev1.Secret{}, 0)
		handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { then(o.(*corev1.Secret)) }, UpdateFunc: func(_, o any) { then(o.(*corev1.Secret)) }, DeleteFunc: func(any) { then(nil) },
		})
		if err != nil {
			return nil, err
		}
		s.taken = append(s.taken, handler.HasSynced)
		return informer, nil
	}
	if s.join, err = follow(JoinSecret, s.takeToken); err != nil {
		return nil, err
	}
	s.credential, err = follow(CredentialSecret, s.take)
	return s, err
}

// take makes what a Secret holds the credential that each new request is sent with.
func (s *secrets) take(secret *corev1.Secret) {
	next := readCredential(secret)
	leave := secret != nil && metav1.HasAnnotation(secret.ObjectMeta, AnnotationLeave)
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := leave && !s.leave // not by what the agent itself writes there, or it would try again at once
	s.leave = leave
	if next == s.current || next != nil && s.current != nil && sameCredential(next, s.current) {
		if asked {
			s.notify()
		}
		return
	}
	s.current, s.config = next, nil
	if next != nil {
		s.config = next.config()
	}
	s.notify()
}

func sameCredential(a, b *Credential) bool {
	return a.Server == b.Server && string(a.CA) == string(b.CA) && a.Member == b.Member && a.ID == b.ID && a.ClusterUID == b.ClusterUID &&
		a.JoinedBy == b.JoinedBy && a.Token == b.Token && string(a.Certificate) == string(b.Certificate)
}

// takeToken wakes who waits for a token.
func (s *secrets) takeToken(*corev1.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify()
}

// notify wakes who waits for a change. The caller holds the lock.
func (s *secrets) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// now is the credential of now and what is closed at the next change.
func (s *secrets) now() (*Credential, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.changed
}

// configNow is how a request is sent now; nil: there is no credential.
func (s *secrets) configNow() *rest.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config
}

// run follows both until ctx ends.
func (s *secrets) run(ctx context.Context) {
	go s.join.RunWithContext(ctx)
	go s.credential.RunWithContext(ctx)
	<-ctx.Done()
}

// synced waits until both were read and taken. An informer alone has synced before that: the
// agent would see a credential in its store and none in now.
func (s *secrets) synced(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), s.taken...)
}

// token is the join token; "": there is none.
func (s *secrets) token() string {
	for _, o := range s.join.GetStore().List() { // of one name
		return strings.TrimSpace(string(o.(*corev1.Secret).Data[JoinTokenKey]))
	}
	return ""
}

// stored is Secret crossway-hub-credential; nil: there is none.
func (s *secrets) stored() *corev1.Secret {
	for _, o := range s.credential.GetStore().List() {
		return o.(*corev1.Secret)
	}
	return nil
}

// store writes the Secret's data, and what is in it at once for this replica.
func (s *secrets) store(ctx context.Context, data map[string][]byte) error {
	secret := s.stored()
	if secret == nil {
		return ownError{fmt.Errorf("Secret %s does not exist; charts/member-agent makes it: install the chart anew", CredentialSecret)}
	}
	stored, err := s.write(ctx, secret, data)
	if apierrors.IsConflict(err) { // an annotation is another: the agent itself writes one
		now, getErr := s.client.Get(ctx, CredentialSecret, metav1.GetOptions{})
		if getErr == nil && apiequality.Semantic.DeepEqual(now.Data, secret.Data) {
			stored, err = s.write(ctx, now, data)
		}
	}
	if err != nil {
		return ownError{fmt.Errorf("write Secret %s: %w", CredentialSecret, err)}
	}
	if err := s.credential.GetStore().Update(stored); err != nil { // the informer says the same a moment later
		return ownError{fmt.Errorf("keep Secret %s: %w", CredentialSecret, err)}
	}
	s.take(stored)
	return nil
}

func (s *secrets) write(ctx context.Context, secret *corev1.Secret, data map[string][]byte) (*corev1.Secret, error) {
	next := secret.DeepCopy()
	next.Data = data
	if _, left := data[keyLeft]; left {
		delete(next.Annotations, AnnotationLeave)
	}
	return s.client.Update(ctx, next, metav1.UpdateOptions{})
}

// storePending keeps what was asked for beside the credential of now.
func (s *secrets) storePending(ctx context.Context, p pending) error {
	data := p.data()
	if have := readCredential(s.stored()); have != nil {
		maps.Copy(data, have.Data())
	}
	return s.store(ctx, data)
}
