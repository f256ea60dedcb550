package agent

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
)

// AnnotationStatus on Secret crossway-hub-credential is what the agent said last of its
// way into the fleet: "<reason>: <message>".
const AnnotationStatus = "crossway.dev/join-status"

// Reasons in AnnotationStatus that `crossway join` and `crossway leave` know.
const (
	ReasonTokenUnreadable        = "TokenUnreadable"
	ReasonWrongCA                = "WrongCA"
	ReasonWrongHubName           = "WrongHubName"
	ReasonHubCertificateNotValid = "HubCertificateNotValid"
	ReasonCredentialUnknown      = "CredentialUnknown"
	ReasonCredentialEnded        = "CredentialEnded"
	ReasonDenied                 = "Denied"
	ReasonForbidden              = "Forbidden"
	ReasonWaitingForAcceptance   = "WaitingForAcceptance"
	ReasonWaitingForCertificate  = "WaitingForCertificate"
	ReasonJoined                 = "Joined"
	ReasonWorking                = "Working"
	ReasonRefused                = "Refused"
	ReasonLeft                   = "Left"
)

// annotateTimeout is how long writing that annotation may take.
const annotateTimeout = 5 * time.Second

// state is where a cluster is on its way into the fleet, or what keeps it.
type state struct {
	reason, message string
	moment          string // the end of the message, which is another each time: it is not said again for that alone
	blocks          bool   // the agent works on nothing meanwhile
	wrong           bool   // somebody must do something
}

func (s state) text() string { return s.message + s.moment }

// same tells whether two states differ in nothing that is worth saying.
func (s state) same(other state) bool {
	s.moment, other.moment = "", ""
	return s == other
}

// topic is what a state is about: the newest of each topic counts.
type topic string

const (
	topicJoin  topic = "join"  // has the cluster a credential?
	topicLease topic = "lease" // may it work with that?
	topicClock topic = "clock"
)

// status says each state once, when it changes.
type status struct {
	log     logr.Logger
	events  events.EventRecorder
	pod     *corev1.Pod // of the agent, which Events are about
	secrets corev1client.SecretInterface

	mu     sync.Mutex
	states map[topic]state // guarded by mu
}

// say takes note of a state. It is called again and again.
func (s *status) say(ctx context.Context, about topic, now state) {
	s.mu.Lock()
	before, known := s.states[about]
	s.states[about] = now
	s.mu.Unlock()
	if known && before.same(now) || !known && now.message == "" {
		return
	}
	if now.message == "" { // of a trouble that is over
		s.log.Info("over: "+before.message, "reason", before.reason)
		return
	}
	kind := corev1.EventTypeNormal
	if now.wrong {
		kind = corev1.EventTypeWarning
	}
	s.log.Info(now.text(), "reason", now.reason)
	if s.pod.Name != "" {
		s.events.Eventf(s.pod, nil, kind, now.reason, "Join", "%s", now.text())
	}
	if about != topicClock {
		s.annotate(ctx, now.reason+": "+now.text())
	}
}

// annotate is for `crossway join`, which waits for what is said there.
func (s *status) annotate(ctx context.Context, text string) {
	ctx, cancel := context.WithTimeout(ctx, annotateTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{AnnotationStatus: text}}})
	if err == nil {
		_, err = s.secrets.Patch(ctx, CredentialSecret, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil && ctx.Err() == nil {
		s.log.Info("could not write the state to Secret "+CredentialSecret, "answer", err.Error())
	}
}

// ready is an error that says what keeps the agent from working; nil: nothing does.
func (s *status) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, about := range []topic{topicJoin, topicLease} {
		if state := s.states[about]; state.blocks {
			return errors.New(state.reason + ": " + state.text())
		}
	}
	return nil
}
