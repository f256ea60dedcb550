package gateway

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/api/v1alpha1"
)

// Where the hub may read Secrets of some namespaces only, a Gateway that names
// another one says so, and what to do, instead of asking for a Secret that is there.
func TestGatewayNamesSecretThatHubMayNotRead(t *testing.T) {
	in := Input{
		GatewayClasses: []gatewayv1.GatewayClass{{ObjectMeta: metav1.ObjectMeta{Name: "crossway"}, Spec: gatewayv1.GatewayClassSpec{ControllerName: v1alpha1.GatewayController}}},
		Gateways: []gatewayv1.Gateway{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "site"}, Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "crossway", Listeners: []gatewayv1.Listener{{Name: "https", Port: 443, Protocol: gatewayv1.HTTPSProtocolType,
				TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "site"}}}}}}}},
	}
	for readable, want := range map[string]string{
		"":           `there is no Secret "shop/site" of type kubernetes.io/tls`,
		"shop":       `there is no Secret "shop/site" of type kubernetes.io/tls`,
		"infra,edge": `the hub may not read Secret "shop/site"; use one in namespace infra, edge, or have "shop" added to secretNamespaces`,
	} {
		in.SecretNamespaces = nil
		if readable != "" {
			in.SecretNamespaces = strings.Split(readable, ",")
		}
		var said []string
		for _, r := range Report(Build(in), nil) {
			for _, l := range r.Listeners {
				for _, c := range l.Conditions {
					said = append(said, c.Message)
				}
			}
		}
		if all := strings.Join(said, "\n"); !strings.Contains(all, want) {
			t.Errorf("with %q: %s", readable, all)
		}
	}
}
