package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// AnnotationLeave on Secret crossway-hub-credential, with any value, makes the cluster
// leave the fleet: `crossway leave` sets it after the cluster was drained.
const AnnotationLeave = "crossway.dev/leave"

// keyLeft is the digest of the join token with which a cluster that left had joined: it
// does not join again with it.
const keyLeft = "left"

// errLeaving ends the program while it works: it leaves when it starts anew, and nothing
// of it writes then.
var errLeaving = errors.New("this cluster leaves the fleet: the agent starts anew, and withdraws all that it made")

// leaving tells whether the cluster is to leave.
func (s *secrets) leaving() bool {
	stored := s.stored()
	if stored == nil {
		return false
	}
	_, asked := stored.Annotations[AnnotationLeave]
	return asked
}

// HasLeft tells whether Secret crossway-hub-credential is that of a cluster which has left, and has not joined since.
func HasLeft(s *corev1.Secret) bool {
	_, left := s.Data[keyLeft]
	return left && readCredential(s) == nil && readPending(s).ID == ""
}

// left tells whether a token was used before the cluster left.
func (s *secrets) left(token string) bool {
	stored := s.stored()
	return stored != nil && token != "" && string(stored.Data[keyLeft]) == digest(token)
}

// leave withdraws all that the agent made on the hub and in this cluster, and forgets the
// credential, or that it asked for one (have is nil). It is called before the agent works,
// so nobody holds the Lease.
func (a *Agent) leave(ctx context.Context, have *Credential) error {
	if have == nil {
		return a.secrets.store(ctx, map[string][]byte{keyLeft: []byte(readPending(a.secrets.stored()).For)})
	}
	hub, err := a.client(a.secrets.configNow())
	if err != nil {
		return err
	}
	if have.ClusterUID == a.uid {
		if err := a.options.Leave(ctx, hub, *have); err != nil {
			return err
		}
	}
	return a.secrets.store(ctx, map[string][]byte{keyLeft: []byte(have.JoinedBy)})
}

// leaves does that, and says what it came to.
func (a *Agent) leaves(ctx context.Context, have *Credential) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if err := a.leave(ctx, have); err != nil {
		now := a.noAccess(cmp.Or(have, &Credential{}), err)
		now.reason, now.message = "Leaving", "this cluster has not left yet: "+now.message
		a.status.say(ctx, topicLease, now)
		return
	}
	message := "this cluster asks to join no more"
	if have != nil {
		message = fmt.Sprintf("this cluster has left the fleet of the hub at %s, where it was %s: nothing of it is there any more, and no import is here", have.Server, have.Member)
	}
	a.status.say(ctx, topicLease, state{})
	a.status.say(ctx, topicJoin, state{reason: ReasonLeft, blocks: true, message: message + ". Uninstall charts/member-agent, or join again with a new token"})
}

// Leaver withdraws what the agent's controllers made, on the hub and in this cluster.
type Leaver func(ctx context.Context, hub client.Client, c Credential) error
