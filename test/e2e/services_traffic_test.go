package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

// workload is the application behind the Service: KIND has stable host names where it is a StatefulSet.
const workload = `
apiVersion: apps/v1
kind: KIND
metadata: {name: hello, namespace: NAMESPACE}
spec:
  replicas: 2
  SERVICENAME
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello, version: v1}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: echo
        image: crossway/echo
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /-/ready, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
        env: [{name: CLUSTER, value: CLUSTERNAME}]
`

const requestPod = `
apiVersion: v1
kind: Pod
metadata: {name: request, namespace: NAMESPACE, labels: {app: request}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: request, image: busybox, command: [sleep, infinity]}]
`

// deploy starts two pods of the service in clusters, and a pod that asks in every cluster.
func (s *shared) deploy(kind string, clusters ...member) {
	s.Helper()
	for _, m := range s.all() {
		s.Must(m.Apply(s.Context(), []byte(strings.ReplaceAll(requestPod, "NAMESPACE", s.namespace))))
	}
	name := ""
	if kind == "StatefulSet" {
		name = "serviceName: hello"
	}
	for _, m := range clusters {
		manifest := strings.NewReplacer("KIND", kind, "NAMESPACE", s.namespace, "SERVICENAME", name, "CLUSTERNAME", m.Name).Replace(workload)
		s.Must(m.Apply(s.Context(), []byte(manifest)))
	}
	for _, m := range s.all() {
		s.Must(m.AwaitPods(s.within(time.Minute), s.namespace, "app=request", 1))
	}
	for _, m := range clusters {
		s.Must(m.AwaitPods(s.within(time.Minute), s.namespace, "app=hello", 2))
	}
}

func (s *shared) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), d)
	s.Cleanup(cancel)
	return ctx
}

// host is the service's name in the clusterset's zone.
func (s *shared) host() string { return "hello." + s.namespace + ".svc.clusterset.local" }

// lookup asks the cluster's name server from its request pod.
func (s *shared) lookup(m member, kind dnsmessage.Type, name string) lab.NameAnswer {
	s.Helper()
	answer, err := m.Lookup(s.within(10*time.Second), m.DialerIn(s.namespace, "request"), kind, name)
	s.Must(err)
	return answer
}

// named waits until a name has exactly these records; without any, until it does not exist.
func (s *shared) named(m member, kind dnsmessage.Type, name string, records ...string) {
	s.Helper()
	slices.Sort(records)
	s.wait(fmt.Sprintf("in %s, %s %s to be %q", m.Name, kind, name, records), func() (bool, any) {
		got := s.lookup(m, kind, name)
		return slices.Equal(got.Records, records) && (len(records) > 0) == (got.Code == "Success"), got
	})
}

func targetPort(port int32, target int, name string) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: port, TargetPort: intstr.FromInt(target), Protocol: corev1.ProtocolTCP}
}

// web is a Service whose one port the echo program serves.
func web(port int32, name string) func(*corev1.Service) { return ports(targetPort(port, 8080, name)) }

// client sends requests of a cluster's request pod to the import's first IP.
func (s *shared) client(m member, port int) load.Config {
	s.Helper()
	i := s.imported(m, "an IP", func(i *mcsv1beta1.ServiceImport) bool { return len(i.Spec.IPs) > 0 })
	return s.clientTo(m, i.Spec.IPs[0], port)
}

// clientTo sends requests of a cluster's request pod, each over a connection of its own: kube-proxy chooses an endpoint
// for a connection.
func (s *shared) clientTo(m member, address string, port int) load.Config {
	c := load.Client(m.DialerIn(s.namespace, "request"), nil)
	c.Transport.(*http.Transport).DisableKeepAlives = true
	c.Timeout = 5 * time.Second
	return load.Config{Rate: 100, URL: "http://" + net.JoinHostPort(address, strconv.Itoa(port)) + "/", Host: s.host(), Client: c}
}

// answeredBy waits until 30 requests in a row from a cluster are answered, by all of exactly these clusters.
func (s *shared) answeredBy(m member, port int, clusters ...string) {
	s.Helper()
	s.answered(m, s.client(m, port), clusters...)
}

func (s *shared) answered(m member, config load.Config, clusters ...string) {
	s.Helper()
	slices.Sort(clusters)
	s.wait(fmt.Sprintf("requests of %s to %s to be answered by %v", m.Name, config.URL, clusters), func() (bool, any) {
		samples := load.Run(s.Context(), config, 30)
		by := map[string]int{}
		for _, sample := range samples {
			by[sample.Cluster+sample.Error]++
		}
		return load.Failed(samples) == 0 && slices.Equal(slices.Sorted(maps.Keys(by)), clusters), by
	})
}

// refused waits until nobody answers at a port.
func (s *shared) refused(m member, port int) {
	s.Helper()
	config := s.client(m, port)
	config.Client.Timeout = 2 * time.Second
	s.wait(fmt.Sprintf("requests of %s to port %d to fail", m.Name, port), func() (bool, any) {
		samples := load.Run(s.Context(), config, 5)
		return load.Failed(samples) == 5, samples
	})
}

// Pods reach a service of other clusters by its IP and its names, by kube-proxy and CoreDNS as everybody has them: the
// behaviours of the official suite that need pods, and what it leaves out.
func TestServiceTraffic(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(*shared)
	}{
		{"by name and IP", byNameAndIP},
		{"one name, other numbers", otherNumbers},
		{"other names and numbers", otherNames},
		{"names of pods", namesOfPods},
		{"both IP families", bothFamilies},
		{"own region first", ownRegionFirst},
		{"changes under load", changesUnderLoad},
		{"a silent cluster", silentCluster},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(newShared(t)) })
	}
}

func byNameAndIP(s *shared) {
	s.deploy("Deployment", s.west, s.east)
	own := map[string]*corev1.Service{"us-west": s.service(s.west, web(80, "http")), "us-east": s.service(s.east, web(80, "http"))}
	for _, m := range s.all() { // nobody exports it yet
		s.named(m, dnsmessage.TypeA, s.host())
	}
	s.export(s.west)
	for _, m := range s.all() {
		i := s.imported(m, "an IP", func(i *mcsv1beta1.ServiceImport) bool { return len(i.Spec.IPs) > 0 })
		s.named(m, dnsmessage.TypeA, s.host(), "A "+i.Spec.IPs[0])
		s.named(m, dnsmessage.TypeSRV, "_http._tcp."+s.host(), "SRV 80 "+s.host()+".")
		s.named(m, dnsmessage.TypeA, "us-west."+s.host())
		s.named(m, dnsmessage.TypeTXT, "dns-version.clusterset.local", "TXT 1.0.0")
		s.answeredBy(m, 80, "us-west") // also in us-east, which has pods and does not export
		local := strings.Replace(s.host(), "clusterset", "cluster", 1)
		if service := own[m.Name]; service != nil {
			s.named(m, dnsmessage.TypeA, local, "A "+service.Spec.ClusterIP)
		} else {
			s.named(m, dnsmessage.TypeA, local)
		}
	}
	out, err := s.far.Kubectl(s.Context(), nil, "exec", "-n", s.namespace, "request", "--", "timeout", "5", "bash", "-c",
		"exec 3<>/dev/tcp/"+s.host()+`/80; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3`)
	if !strings.Contains(out, `"cluster":"us-west"`) {
		s.Errorf("the name in a pod of eu-west: %s %v", out, err)
	}
	s.export(s.east)
	for _, m := range s.all() {
		s.answeredBy(m, 80, "us-west", "us-east")
	}
	s.unexport(s.west)
	s.unexport(s.east)
	for _, m := range s.all() {
		s.named(m, dnsmessage.TypeA, s.host())
	}
}

func otherNumbers(s *shared) {
	s.deploy("Deployment", s.west, s.east)
	s.serve(s.west, web(80, "http"))
	s.serveSecond(s.east, web(81, "http"))
	s.conflict(mcsv1beta1.ServiceExportReasonPortConflict, s.west, s.east)
	for _, m := range s.all() {
		s.answeredBy(m, 80, "us-west")
		s.refused(m, 81)
	}
}

func otherNames(s *shared) {
	s.deploy("Deployment", s.west, s.east)
	s.serve(s.west, web(80, "http"))
	s.serveSecond(s.east, web(81, "web"))
	for _, m := range s.all() {
		s.answeredBy(m, 80, "us-west")
		s.answeredBy(m, 81, "us-east")
	}
	s.editService(s.east, web(80, "web")) // a number that both have, under two names
	for _, m := range s.all() {
		s.answeredBy(m, 80, "us-west", "us-east")
	}
}

func namesOfPods(s *shared) {
	s.deploy("StatefulSet", s.west, s.east)
	edit := func(service *corev1.Service) { headless(service); web(8080, "http")(service) }
	s.serve(s.west, edit)
	s.serveSecond(s.east, edit)
	var addresses, targets []string
	perPod := map[string]string{}
	for _, m := range []member{s.west, s.east} {
		for _, pod := range s.pods(m) {
			name := pod.Name + "." + m.Name + "." + s.host()
			addresses, targets, perPod[name] = append(addresses, "A "+pod.Status.PodIP), append(targets, "SRV 8080 "+name+"."), pod.Status.PodIP
		}
	}
	for _, m := range s.all() {
		s.named(m, dnsmessage.TypeA, s.host(), addresses...)
		s.named(m, dnsmessage.TypeSRV, "_http._tcp."+s.host(), targets...)
		for name, address := range perPod {
			s.named(m, dnsmessage.TypeA, name, "A "+address)
		}
		s.named(m, dnsmessage.TypeA, "us-west."+s.host())
	}
	for _, m := range []member{s.west, s.east} {
		_, err := m.Kubectl(s.Context(), nil, "scale", "-n", s.namespace, "statefulset/hello", "--replicas=0")
		s.Must(err)
	}
	s.named(s.far, dnsmessage.TypeA, s.host()) // none is ready: NXDOMAIN
}

// bothFamilies: one IP of each family, and a family of a headless service that has no IP.
func bothFamilies(s *shared) {
	s.deploy("Deployment", s.west, s.east)
	both := func(service *corev1.Service) {
		web(80, "http")(service)
		families(corev1.IPv6Protocol, corev1.IPv4Protocol)(service)
	}
	s.serve(s.west, both)
	s.serveSecond(s.east, both)
	for _, m := range s.all() {
		i := s.imported(m, "two IPs", func(i *mcsv1beta1.ServiceImport) bool { return len(i.Spec.IPs) == 2 })
		s.named(m, dnsmessage.TypeAAAA, s.host(), "AAAA "+i.Spec.IPs[0])
		s.named(m, dnsmessage.TypeA, s.host(), "A "+i.Spec.IPs[1])
		for _, ip := range i.Spec.IPs {
			s.answered(m, s.clientTo(m, ip, 80), "us-west", "us-east")
		}
	}
}

func (s *shared) pods(m member) []corev1.Pod {
	s.Helper()
	list, err := m.Client.CoreV1().Pods(s.namespace).List(s.Context(), metav1.ListOptions{LabelSelector: "app=hello"})
	s.Must(err)
	return list.Items
}

// ownRegionFirst: a pod's requests stay in its region while there is a ready endpoint.
func ownRegionFirst(s *shared) {
	s.deploy("Deployment", s.west, s.east, s.far)
	s.Cleanup(func() {
		if s.Failed() {
			for _, m := range s.all() {
				out, err := m.Kubectl(context.WithoutCancel(s.Context()), nil, "get", "endpointslices,serviceimports", "-n", s.namespace, "-o", "yaml")
				s.Log(m.Name, err, out)
			}
		}
	})
	for _, m := range s.all() {
		s.serve(m, web(80, "http"))
	}
	s.answeredBy(s.far, 80, "eu-west")
	s.answeredBy(s.west, 80, "us-west", "us-east")
	s.unexport(s.far)
	s.answeredBy(s.far, 80, "us-west", "us-east")
}

// changesUnderLoad: no request of a pod in another cluster is lost to what people do every day.
func changesUnderLoad(s *shared) {
	s.deploy("Deployment", s.west, s.east)
	s.serve(s.west, web(80, "http"))
	s.serve(s.east, web(80, "http"))
	s.answeredBy(s.far, 80, "us-west", "us-east")
	for _, change := range []struct {
		what string
		do   func()
	}{
		{"a port is renamed in one cluster", func() { s.editService(s.east, web(80, "web")) }},
		{"a rollout", func() {
			for _, command := range [][]string{{"rollout", "restart"}, {"rollout", "status", "--timeout=60s"}} {
				_, err := s.west.Kubectl(s.Context(), nil, append(command, "-n", s.namespace, "deployment/hello")...)
				s.Must(err)
			}
			s.Must(s.west.AwaitPods(s.within(time.Minute), s.namespace, "app=hello", 2))
		}},
		{"a withdrawal", func() { s.unexport(s.east); s.answeredBy(s.far, 80, "us-west") }},
	} {
		config := s.client(s.far, 80)
		config.Rate = 300
		recorder := load.Start(s.Context(), config)
		for len(recorder.Samples()) < 300 && s.Context().Err() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		change.do()
		after := len(recorder.Samples())
		for len(recorder.Samples()) < after+600 && s.Context().Err() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		samples := recorder.Stop()
		for _, sample := range samples {
			if sample.Status != http.StatusOK {
				s.Logf("%s: failed at %s after %s: %d %s", change.what, sample.At.Format("15:04:05.000"), sample.Took, sample.Status, sample.Error)
			}
		}
		if n := load.Failed(samples); n > 0 {
			s.Errorf("%s: %d of %d requests failed", change.what, n, len(samples))
		}
		s.Logf("%s: %d requests", change.what, len(samples))
	}
}

// silentCluster: nobody hears of a cluster for longer than the hub waits; what it exports stays imported.
func silentCluster(s *shared) {
	s.deploy("Deployment", s.east)
	s.serve(s.east, web(80, "http"))
	s.answeredBy(s.far, 80, "us-east")
	t := s.TB.(*testing.T)
	restore(t, func(ctx context.Context) error { return story.Lab.Restore("us-east") })
	s.Must(story.Lab.Cut("us-east"))
	says(t, object{"hub", "membercluster", "", "us-east"}, "Reachable=False")
	for _, m := range []member{s.west, s.far} {
		i := s.imported(m, "its exporter", clustersAre("us-east"))
		if found := s.slices(m); len(found) != 1 || len(found[0].Endpoints) != 2 || len(i.Spec.IPs) == 0 {
			s.Errorf("%s has slices %v, IPs %v of a silent cluster", m.Name, found, i.Spec.IPs)
		}
	}
	s.Must(story.Lab.Restore("us-east"))
	s.answeredBy(s.far, 80, "us-east")
	says(t, object{"hub", "membercluster", "", "us-east"}, "Reachable=True")
}
