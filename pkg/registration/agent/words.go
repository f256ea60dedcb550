package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/registration"
)

// asked is a request to the hub that failed, and what is known about it.
type asked struct {
	server string
	member fleet.ClusterName
	what   string    // it was sent with: "the join token", "this cluster's credential"
	until  time.Time // when that ends
	now    time.Time // by this cluster's clock
	atHub  time.Time // by the hub's, as far as that is known
}

// ownError is an error of this cluster, not of the hub.
type ownError struct{ error }

// Unwrap returns the error.
func (e ownError) Unwrap() error { return e.error }

// newToken is what to do when a token is no good.
const newToken = "make a new one on the hub (crossway token create %s) and give it to this cluster (crossway join)"

// failed is what an error means, in words for whoever joined the cluster.
func (a asked) failed(err error) state {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var network *url.Error
	var own ownError
	wrong := func(reason, format string, arguments ...any) state {
		return state{reason: reason, message: fmt.Sprintf(format, arguments...), blocks: true, wrong: true}
	}
	at := func(now state, format string, arguments ...any) state {
		now.moment = fmt.Sprintf(format, arguments...)
		return now
	}
	switch {
	case errors.As(err, &own):
		return wrong("ThisCluster", "%v", own.error)
	case errors.As(err, &unknown):
		return wrong(ReasonWrongCA, "whoever answers at %s is not signed by the CA that the join token names: it is another API server, a proxy between, or the hub has a new CA; "+newToken, a.server, a.member)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return at(wrong(ReasonHubCertificateNotValid, "the certificate of the hub at %s is valid from %s to %s: set the clock of the node, or renew that certificate",
			a.server, text(invalid.Cert.NotBefore), text(invalid.Cert.NotAfter)), " (this cluster's clock says %s)", text(a.now))
	case errors.As(err, &host):
		return wrong(ReasonWrongHubName, "the hub's certificate is not for the name in %s: %v; make the token with a URL that the certificate has (crossway token create --hub-server)", a.server, host)
	case apierrors.IsUnauthorized(err) && !a.until.IsZero() && !a.atHub.Before(a.until):
		return at(wrong(ReasonCredentialEnded, "%s ended at %s; "+newToken, a.what, text(a.until), a.member), " (at the hub it is %s, here %s)", text(a.atHub), text(a.now))
	case apierrors.IsUnauthorized(err):
		return wrong(ReasonCredentialUnknown, "the hub at %s does not know %s (any more): it was used, withdrawn, revoked, or is of another hub; "+newToken, a.server, a.what, a.member)
	case apierrors.IsForbidden(err):
		return wrong(ReasonForbidden, "the hub refuses %s: %v; deployment crossway-hub there is not running yet, or it was revoked: then "+newToken, a.what, err, a.member)
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), isNetwork(err):
		return at(wrong("HubNotReachable", "the hub does not answer at %s; look at the network path from this cluster, and at the URL", a.server), ": %v", err)
	}
	return wrong("HubError", "the hub at %s answers: %v", a.server, err)
}

// refusal is a verdict of the hub.
func (a asked) refusal(said string) state {
	return state{reason: ReasonDenied, blocks: true, wrong: true, message: fmt.Sprintf("the hub at %s refuses %s: %s", a.server, a.what, said)}
}

func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network)
}

func text(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// clockState is what there is to say of the difference of the clocks.
func clockState(told *registration.Clocks) state {
	if told == nil {
		return state{}
	}
	word, difference := "behind", -told.Ahead()
	if difference < 0 {
		word, difference = "ahead of", -difference
	}
	return state{reason: "ClockDiffers", wrong: true, message: fmt.Sprintf("this cluster's clock is %s %s the hub's: here it was %s when it was %s there; look at NTP on the nodes of both. "+
		"What the hub gives out is reckoned by its clock", difference.Round(time.Second), word, text(told.Member), text(told.Hub))}
}
