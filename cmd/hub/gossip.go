package main

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/pkg/registration"
	registrationhub "crossway.dev/crossway/pkg/registration/hub"
)

// signGossip signs certificates for gossip; nil: the hub has none.
func signGossip(o Options, objects client.Reader) func(registration.GossipIdentity, []byte, time.Time) ([]byte, error) {
	if !o.gossips() {
		return nil
	}
	return func(id registration.GossipIdentity, request []byte, credentialEnd time.Time) ([]byte, error) {
		return registrationhub.SignGossip(context.Background(), objects, o.Namespace,
			registrationhub.GossipRequest{Identity: id, Request: request, CredentialEnd: credentialEnd, Now: time.Now()})
	}
}
