package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/testkit"
)

// imports are what an agent writes into a cluster, by hand: a ServiceImport with
// an IP of each family, whose Service is elsewhere, and one without IPs. Of its
// endpoints one is not ready, and one has no hostname.
const imports = `
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: store, namespace: NAMESPACE}
spec: {type: ClusterSetIP, ips: [10.102.18.1, "fd00::1812"], ipFamilies: [IPv4, IPv6], ports: [{name: http, port: 80, protocol: TCP}, {name: dns, port: 53, protocol: UDP}, {name: bare, port: 81}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: store-a, namespace: NAMESPACE, labels: {multicluster.kubernetes.io/service-name: store, multicluster.kubernetes.io/source-cluster: us-west}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.3], hostname: store-0}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: db, namespace: NAMESPACE}
spec: {type: Headless, ipFamilies: [IPv4, IPv6], ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-a, namespace: NAMESPACE, labels: {multicluster.kubernetes.io/service-name: db, multicluster.kubernetes.io/source-cluster: us-west}}
addressType: IPv4
ports: [{name: sql, port: 5433}]
endpoints:
- {addresses: [10.1.0.4], hostname: db-0}
- {addresses: [10.1.0.5], hostname: db-1, conditions: {ready: false}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-b, namespace: NAMESPACE, labels: {multicluster.kubernetes.io/service-name: db, multicluster.kubernetes.io/source-cluster: eu-west}}
addressType: IPv4
ports: [{name: sql, port: 5433}]
endpoints: [{addresses: [10.3.0.4], hostname: db-0}, {addresses: [10.3.0.5]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-c, namespace: NAMESPACE, labels: {multicluster.kubernetes.io/service-name: db, multicluster.kubernetes.io/source-cluster: eu-west}}
addressType: IPv6
ports: [{name: sql, port: 5433}]
endpoints: [{addresses: ["fd00::3:4"], hostname: db-0}]
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata: {name: empty, namespace: NAMESPACE}
spec: {type: Headless, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: store, namespace: NAMESPACE}
spec: {clusterIP: 10.102.18.2, clusterIPs: [10.102.18.2, "fd10::10.102.18.2"], ipFamilyPolicy: RequireDualStack, ports: [{name: http, port: 80}]}
`

// The lab's name server answers as the multi-cluster DNS specification 1.0.0
// says, and cluster.local stays what it is.
func TestNamesOfTheClusterSet(t *testing.T) {
	testkit.Must(t, fleet.InstallDNS(within(t, time.Minute)))
	c := fleet.Members["us-east"]
	apply(t, c, "dns", imports)
	const zone = ".dns.svc.clusterset.local"
	lookup := func(kind dnsmessage.Type, name string) lab.NameAnswer {
		t.Helper()
		answer, err := c.Lookup(within(t, 10*time.Second), fleet.DialerAt(c.Name), kind, name)
		testkit.Must(t, err)
		return answer
	}
	eventually(t, within(t, 20*time.Second), "all objects to reach the name server", func() (bool, string) {
		addresses, service := lookup(dnsmessage.TypeAAAA, "db"+zone), lookup(dnsmessage.TypeA, "store.dns.svc.cluster.local")
		ips := lookup(dnsmessage.TypeA, "store"+zone)
		return len(addresses.Records) == 1 && len(service.Records) == 1 && len(ips.Records) == 1, fmt.Sprint(addresses, service, ips)
	})
	const none = "NameError"
	for _, c := range []struct {
		kind dnsmessage.Type
		name string
		want []string // the code alone where no record is expected
	}{
		{dnsmessage.TypeTXT, "dns-version.clusterset.local", []string{"TXT 1.0.0"}},
		{dnsmessage.TypeTXT, "dns-version.cluster.local", []string{"TXT 1.1.0"}},
		{dnsmessage.TypeTXT, "store" + zone, []string{"Success"}},

		{dnsmessage.TypeA, "store" + zone, []string{"A 10.102.18.1"}},
		{dnsmessage.TypeAAAA, "store" + zone, []string{"AAAA fd00::1812"}},
		{dnsmessage.TypeSRV, "_http._tcp.store" + zone, []string{"SRV 80 store" + zone + "."}},
		{dnsmessage.TypeSRV, "_dns._udp.store" + zone, []string{"SRV 53 store" + zone + "."}},
		{dnsmessage.TypeSRV, "_bare._tcp.store" + zone, []string{none}}, // CoreDNS knows no default protocol
		{dnsmessage.TypeSRV, "_other._tcp.store" + zone, []string{none}},
		{dnsmessage.TypeA, "us-west.store" + zone, []string{none}},

		{dnsmessage.TypeA, "db" + zone, []string{"A 10.1.0.4", "A 10.3.0.4", "A 10.3.0.5"}},
		{dnsmessage.TypeAAAA, "db" + zone, []string{"AAAA fd00::3:4"}},
		{dnsmessage.TypeSRV, "_sql._tcp.db" + zone, []string{
			"SRV 5433 10-3-0-5.eu-west.db" + zone + ".", "SRV 5433 db-0.eu-west.db" + zone + ".", "SRV 5433 db-0.us-west.db" + zone + ".",
		}},
		{dnsmessage.TypeA, "db-0.us-west.db" + zone, []string{"A 10.1.0.4"}},
		{dnsmessage.TypeA, "db-0.eu-west.db" + zone, []string{"A 10.3.0.4"}},
		{dnsmessage.TypeA, "db-1.us-west.db" + zone, []string{none}}, // not ready
		{dnsmessage.TypeA, "db-0.us-east.db" + zone, []string{none}},
		{dnsmessage.TypeA, "us-west.db" + zone, []string{none}},
		{dnsmessage.TypeA, "empty" + zone, []string{none}},
		{dnsmessage.TypeA, "nothing" + zone, []string{none}},

		{dnsmessage.TypeA, "store.dns.svc.cluster.local", []string{"A 10.102.18.2"}},
		{dnsmessage.TypeAAAA, "store.dns.svc.cluster.local", []string{"AAAA fd10::a66:1202"}},
		{dnsmessage.TypeA, "db.dns.svc.cluster.local", []string{none}},
		{dnsmessage.TypePTR, "2.18.102.10.in-addr.arpa", []string{"PTR store.dns.svc.cluster.local."}},
		{dnsmessage.TypePTR, "1.18.102.10.in-addr.arpa", []string{none}},
	} {
		answer := lookup(c.kind, c.name)
		got := answer.Records
		if len(got) == 0 {
			got = []string{answer.Code}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %s: %s; want %s", c.kind, c.name, answer, strings.Join(c.want, "; "))
		}
	}
}

// A pod finds a service by name: its resolv.conf names the cluster's name server.
func TestNamesInAPod(t *testing.T) {
	testkit.Must(t, fleet.InstallDNS(within(t, time.Minute)))
	c := fleet.Members["us-west"]
	apply(t, c, "names", echo)
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "names", "app=echo", 2))
	service, err := c.Kubectl(t.Context(), nil, "get", "service", "-n", "names", "echo", "-o", "jsonpath={.spec.clusterIP}")
	testkit.Must(t, err)
	eventually(t, within(t, 20*time.Second), "the short name of a Service to be its ClusterIP", func() (bool, string) {
		out, err := c.Kubectl(t.Context(), nil, "exec", "-n", "names", "deployment/echo", "--", "getent", "hosts", "echo")
		return strings.HasPrefix(out, service+" "), fmt.Sprint(out, err)
	})
}
