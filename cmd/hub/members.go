package main

import (
	"context"
	"fmt"

	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"crossway.dev/crossway/pkg/gateway/reconciler"
	"crossway.dev/crossway/pkg/lbsync/server"
	memberapi "crossway.dev/crossway/pkg/memberapi/server"
)

// memberAPI is the API that members read, unless a flag switches it off.
type memberAPI struct {
	o      Options
	server *memberapi.Server
}

func newMemberAPI(o Options, config memberapi.Config) memberAPI {
	return memberAPI{o, memberapi.New(config)}
}

func (m memberAPI) served() bool { return m.o.MemberAddr != "0" }

// imports is who takes merges; nil: nobody.
func (m memberAPI) imports() reconciler.Imports {
	if !m.served() {
		return nil
	}
	return m.server
}

// ping returns an error if the API's loop is stuck.
func (m memberAPI) ping(ctx context.Context) error {
	if !m.served() {
		return nil
	}
	return m.server.Ping(ctx)
}

// runnables serve the API, with the certificate that edges are presented.
func (m memberAPI) runnables(cluster *rest.Config, mgr manager.Manager, edges *server.Listener) ([]manager.Runnable, error) {
	if !m.served() {
		return nil, nil
	}
	reviews, err := authenticationclient.NewForConfig(cluster)
	if err != nil {
		return nil, fmt.Errorf("client of TokenReviews: %w", err)
	}
	authenticator, err := memberapi.NewAuthenticator(mgr.GetCache(), reviews)
	if err != nil {
		return nil, err
	}
	if m.o.MemberURL == "" {
		ctrl.Log.WithName("hub").Info("agents are not told where the member API is, and members import nothing: set --member-api-url")
	}
	return []manager.Runnable{m.server, authenticator, memberapi.NewListener(memberapi.ListenerConfig{Server: m.server, Address: m.o.MemberAddr,
		Authenticator: authenticator, Certificate: edges.Certificate, Certified: edges.Certified()})}, nil
}
