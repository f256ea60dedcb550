package lab_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/serviceimport"
)

// importedEcho is an import of region us in one cluster: one endpoint of its own
// region, and one of another.
type importedEcho struct {
	*testing.T
	cluster *lab.Cluster
	served  *mcsv1beta1.ServiceImport
	near    v1.Pod
	far     v1.Pod
	ip      string
}

// kube-proxy obeys the hints of imported slices: it stays in the region while an
// endpoint is ready there, then takes all others, on nodes with a zone and on those
// without. It knows the cluster's own endpoints by their node.
func TestImportedSlices(t *testing.T) {
	c := fleet.Members["us-west"]
	apply(t, c, "imports", echo)
	testkit.Must(t, c.AwaitPods(within(t, 20*time.Second), "imports", "app=echo", 2))
	pods, err := c.Client.CoreV1().Pods("imports").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	i := &importedEcho{T: t, cluster: c, near: pods.Items[0], far: pods.Items[1], served: &mcsv1beta1.ServiceImport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "imports", Name: "shared", Annotations: map[string]string{v1alpha1.AnnotationRegion: "us"}},
		Spec:       mcsv1beta1.ServiceImportSpec{Type: mcsv1beta1.ClusterSetIP, Ports: []mcsv1beta1.ServicePort{{Name: "http", Port: 80, Protocol: v1.ProtocolTCP}}},
	}}
	service, err := c.Client.CoreV1().Services("imports").Create(t.Context(), serviceimport.DerivedService(i.served), metav1.CreateOptions{})
	testkit.Must(t, err)
	i.ip = service.Spec.ClusterIP

	zone := fleet.Members["us-west"].Name
	for _, labels := range []string{"", `{"metadata":{"labels":{"topology.kubernetes.io/zone":null}}}`} {
		if labels != "" {
			node, err := c.Client.CoreV1().Nodes().Get(t.Context(), zone, metav1.GetOptions{})
			testkit.Must(t, err)
			i.label(zone, labels)
			t.Cleanup(func() {
				i.label(zone, fmt.Sprintf(`{"metadata":{"labels":{"topology.kubernetes.io/zone":%q}}}`, node.Labels[v1.LabelTopologyZone]))
			})
		}
		i.write(true, "")
		i.answers("in its own region", i.near.Name)
		i.write(false, "")
		i.answers("of the other region", i.far.Name)
		i.write(true, "")
		i.answers("again in its own region", i.near.Name)
	}

	i.served.Spec.InternalTrafficPolicy = ptr.To(v1.ServiceInternalTrafficPolicyLocal)
	service.Spec.InternalTrafficPolicy = i.served.Spec.InternalTrafficPolicy
	_, err = c.Client.CoreV1().Services("imports").Update(t.Context(), service, metav1.UpdateOptions{})
	testkit.Must(t, err)
	i.write(true, "another-node")
	i.answers("on its own node", "")
	i.write(true, c.Name)
	i.answers("on its own node", i.near.Name)
}

func (i *importedEcho) label(node, patch string) {
	i.Helper()
	_, err := i.cluster.Client.CoreV1().Nodes().Patch(context.Background(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	testkit.Must(i, err)
}

// write writes the import's slices. The near endpoint may be not ready, or one of
// the cluster's own, on a node.
func (i *importedEcho) write(ready bool, node string) {
	i.Helper()
	nodes, err := i.cluster.Client.CoreV1().Nodes().List(i.Context(), metav1.ListOptions{})
	testkit.Must(i, err)
	e := serviceimport.Endpoints{Cluster: "us-west", Import: i.served, Zones: []string{nodes.Items[0].Labels[v1.LabelTopologyZone]}}
	for region, pod := range map[string]v1.Pod{"us": i.near, "eu": i.far} {
		e.Served = append(e.Served, discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Name: "shared-" + region, Labels: map[string]string{
				mcsv1beta1.LabelSourceCluster: "in-" + region, v1alpha1.LabelSourceRegion: region,
			}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("tcp-80"), Port: ptr.To(int32(8080)), Protocol: ptr.To(v1.ProtocolTCP)}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{pod.Status.PodIP}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(ready || region != "us")}}},
		})
	}
	for _, s := range e.ImportedSlices() {
		if node != "" && s.Name == "shared-us" {
			s.Endpoints[0].NodeName = &node
		}
		slices := i.cluster.Client.DiscoveryV1().EndpointSlices("imports")
		_, err := slices.Update(i.Context(), &s, metav1.UpdateOptions{})
		if err != nil {
			_, err = slices.Create(i.Context(), &s, metav1.CreateOptions{})
		}
		testkit.Must(i, err)
	}
}

// answers waits until all of 20 connections from a pod are answered by one pod;
// "": by none.
func (i *importedEcho) answers(where, pod string) {
	i.Helper()
	client := load.Client(i.cluster.DialerIn("imports", i.far.Name), nil)
	client.Timeout = time.Second
	eventually(i.T, within(i.T, 20*time.Second), "all answers from the pod "+where, func() (bool, string) {
		var answers []string
		for range 20 {
			answers = append(answers, once(i.T, client, "http://"+i.ip))
			if last := answers[len(answers)-1]; (pod == "") != (last == "") || !strings.Contains(last, pod) {
				return false, fmt.Sprint(answers)
			}
		}
		return true, ""
	})
}

// once is the answer to one request on a connection of its own; "": there is none.
func once(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	testkit.Must(t, err)
	request.Close = true
	response, err := client.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	testkit.Must(t, err)
	return string(body)
}
