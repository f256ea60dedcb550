package hub

import (
	"crypto/rand"
	"crypto/tls"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// A replica makes its certificate for gossip anew when the one that it has is old or not valid by the clock of now,
// whatever the clock said when it was signed.
func TestReplicaCertificateFollowsTheClock(t *testing.T) {
	s := newSigner(t)
	testkit.Must(t, s.ensureMemberCA(t.Context()))
	ca, err := MemberCA(t.Context(), s.Live, s.Namespace)
	testkit.Must(t, err)
	for what, c := range map[string]struct {
		ahead time.Duration // of the clock that signed
		kept  bool
	}{
		"signed an hour ago": {-time.Hour, true}, "signed 9 h ago": {-9 * time.Hour, false},
		"ended before the clock was set": {-30 * time.Hour, false}, "begins tomorrow": {24 * time.Hour, false},
	} {
		made, err := registration.NewReplicaCertificate(ca.Issuer(time.Now().Add(c.ahead), rand.Reader), "hub-a")
		testkit.Must(t, err)
		held, err := tls.X509KeyPair(made.Certificate, made.Key)
		testkit.Must(t, err)
		r := ReplicaTLS{Reader: s.Live, Namespace: s.Namespace, Replica: "hub-a", signer: ca.Name(), pair: &held}
		shown, err := r.Certificate()
		testkit.Must(t, err)
		if kept := shown == &held; kept != c.kept {
			t.Errorf("%s: kept %t, want %t", what, kept, c.kept)
		}
		if now := time.Now(); now.Before(shown.Leaf.NotBefore) || !now.Before(shown.Leaf.NotAfter) {
			t.Errorf("%s: shows a certificate from %s to %s", what, shown.Leaf.NotBefore, shown.Leaf.NotAfter)
		}
	}
}
