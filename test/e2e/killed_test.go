package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"crossway.dev/crossway/internal/lab"
)

// part is one cluster's part of one service.
type part struct{ service, cluster string }

// killed is a test in which the hub and agents are killed at random moments, while
// exports change at random. It knows what members export, and since when.
type killed struct {
	*shared
	random   *rand.Rand
	services []string

	mu       sync.Mutex
	exported map[part]string          // the address of what is exported
	stable   map[part]map[string]bool // members that have seen it since it changed last
	ever     map[part]map[string]bool // addresses that it had at some time
}

const (
	killSteps = 60
	// endsWithin is how long what changed last may take: a hub that was killed is silent
	// about what was withdrawn meanwhile, and members keep that for a minute.
	endsWithin = 3 * time.Minute
)

// TestKilledAtRandom: whatever is killed when, no member loses the part of a cluster that
// it has seen and that did not change, none shows an address that the cluster never
// announced, and in the end all have what is exported. CROSSWAY_SEED repeats a run. It is
// not part of make test: each run is another one (make chaos).
func TestKilledAtRandom(t *testing.T) {
	if os.Getenv("CROSSWAY_CHAOS") == "" {
		t.Skip("make chaos runs it")
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CROSSWAY_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("CROSSWAY_SEED=%d", seed)
	k := &killed{shared: newShared(t), random: rand.New(rand.NewPCG(seed, 0)), services: []string{"s0", "s1", "s2", "s3", "s4"},
		exported: map[part]string{}, stable: map[part]map[string]bool{}, ever: map[part]map[string]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var watching sync.WaitGroup
	for _, m := range k.all() {
		watching.Go(func() { k.watch(ctx, m) })
	}
	for range killSteps {
		k.step()
		time.Sleep(time.Duration(k.random.IntN(1000)) * time.Millisecond)
	}
	for _, m := range k.all() {
		deadline := time.Now().Add(endsWithin)
		for want := k.truth(); k.seen(m) != want; time.Sleep(200 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s shows\n%s\nand exported is\n%s", m.Name, k.seen(m), want)
				break
			}
		}
	}
	stop()
	watching.Wait()
}

// step exports, withdraws or changes a part, or kills a program for up to 3 s.
func (k *killed) step() {
	down := time.Duration(k.random.IntN(3000)) * time.Millisecond
	switch n := k.random.IntN(10); {
	case n == 0:
		k.Must(story.KillHub(k.Context(), down))
	case n < 3:
		m := k.all()[k.random.IntN(3)]
		pods, err := m.Client.CoreV1().Pods(lab.System).List(k.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=crossway-member-agent"})
		k.Must(err)
		k.Must(m.KillPod(lab.System, pods.Items[0].Name, down))
	default:
		m := k.all()[k.random.IntN(3)]
		k.change(m, part{k.services[k.random.IntN(len(k.services))], m.Name})
	}
}

// change exports a part that is not exported, or else changes its address or withdraws it.
func (k *killed) change(m member, p part) {
	k.mu.Lock()
	_, exported := k.exported[p]
	delete(k.stable, p) // before anybody can see the change
	address := fmt.Sprintf("10.%d.200.%d", 1+slices.Index(memberNames, p.cluster), 1+k.random.IntN(200))
	withdraws := exported && k.random.IntN(2) == 0
	if withdraws {
		delete(k.exported, p)
	} else {
		k.exported[p] = address
		if k.ever[p] == nil {
			k.ever[p] = map[string]bool{}
		}
		k.ever[p][address] = true
	}
	k.mu.Unlock()
	meta := metav1.ObjectMeta{Namespace: k.namespace, Name: p.service}
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}}},
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}}}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: p.service}
	export := &mcsv1beta1.ServiceExport{ObjectMeta: meta}
	switch {
	case withdraws:
		k.Must(m.api.Delete(k.Context(), export))
	case exported:
		k.Must(m.api.Patch(k.Context(), slice, client.RawPatch("application/json-patch+json",
			[]byte(`[{"op":"replace","path":"/endpoints/0/addresses/0","value":"`+address+`"}]`))))
	default:
		for _, o := range []client.Object{slice, &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{tcp("http", 80)}}}} {
			_ = m.api.Delete(k.Context(), o.DeepCopyObject().(client.Object)) // of the last time
			k.Must(m.api.Create(k.Context(), o))
		}
		k.Must(m.api.Create(k.Context(), export))
	}
}

// parts are the addresses that a member has of each part, joined by blanks.
func (k *killed) parts(ctx context.Context, m member) (map[part]string, error) {
	var list discoveryv1.EndpointSliceList
	err := m.api.List(ctx, &list, client.InNamespace(k.namespace), client.HasLabels{mcsv1beta1.LabelSourceCluster})
	has := map[part]string{}
	for _, s := range list.Items {
		p := part{s.Labels[mcsv1beta1.LabelServiceName], s.Labels[mcsv1beta1.LabelSourceCluster]}
		for _, e := range s.Endpoints {
			has[p] = strings.TrimSpace(has[p] + " " + e.Addresses[0])
		}
	}
	return has, err
}

// watch compares what a member has with what it may have, until ctx ends.
func (k *killed) watch(ctx context.Context, m member) {
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		k.mu.Lock()
		expected := map[part]string{} // what the member has seen, before it is asked again
		for p, by := range k.stable {
			if by[m.Name] {
				expected[p] = k.exported[p]
			}
		}
		k.mu.Unlock()
		has, err := k.parts(ctx, m)
		if err != nil {
			continue
		}
		k.mu.Lock()
		k.compare(m, expected, has)
		k.mu.Unlock()
	}
}

// compare is called with the lock held.
func (k *killed) compare(m member, expected, has map[part]string) {
	for p, address := range expected {
		if k.stable[p][m.Name] && has[p] != address { // it has not changed meanwhile
			k.Errorf("%s has lost %s of %s: it had %q and has %q", m.Name, p.service, p.cluster, address, has[p])
			delete(k.stable, p) // say it once
		}
	}
	for p, addresses := range has {
		for address := range strings.FieldsSeq(addresses) {
			if !k.ever[p][address] {
				k.Errorf("%s shows %s of %s of %s, which never had it", m.Name, address, p.service, p.cluster)
			}
		}
		if addresses == k.exported[p] {
			if k.stable[p] == nil {
				k.stable[p] = map[string]bool{}
			}
			k.stable[p][m.Name] = true
		}
	}
}

// truth is what is exported, as text, and seen what a member shows of it.
func (k *killed) truth() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return partsText(k.exported)
}

func (k *killed) seen(m member) string {
	has, err := k.parts(k.Context(), m)
	k.Must(err)
	return partsText(has)
}

func partsText(parts map[part]string) string {
	var lines []string
	for p, addresses := range maps.All(parts) {
		lines = append(lines, p.service+" of "+p.cluster+": "+addresses)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
