package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"crossway.dev/crossway/pkg/fleetload"
)

const (
	// hubPods are the replicas of the hub, as charts/hub labels them.
	hubPods = "app.kubernetes.io/name=crossway-hub"
	// metricsPort is the name of their port.
	metricsPort = "metrics"
	// readTimeout bounds the reading of one replica.
	readTimeout = 10 * time.Second
	maxMetrics  = 64 << 20
)

// Reader reads the load from all replicas of one hub. It keeps a forward to each of them.
type Reader struct {
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
	forwards  map[types.UID]*forward
}

// New makes a Reader of the hub in a namespace.
func New(config *rest.Config, namespace string) (*Reader, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the hub: %w", err)
	}
	return &Reader{config: config, client: client, namespace: namespace, forwards: map[types.UID]*forward{}}, nil
}

// Close ends the forwards.
func (r *Reader) Close() {
	for uid, f := range r.forwards {
		f.close()
		delete(r.forwards, uid)
	}
}

// Read returns the load as the replica knows it that decides the shares. Replicas that cannot be read are named in it; it
// is an error if none can.
func (r *Reader) Read(ctx context.Context) (fleetload.Load, error) {
	pods, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: hubPods})
	if err != nil {
		return fleetload.Load{}, fmt.Errorf("list the hub's pods: %w", err)
	}
	var replicas []fleetload.Replica
	var unread []string
	for i := range pods.Items {
		pod := &pods.Items[i]
		port := portOf(pod)
		if pod.DeletionTimestamp != nil || port == 0 {
			continue
		}
		if !ready(pod) {
			unread = append(unread, pod.Name+": is not ready")
			continue
		}
		says, err := r.readPod(ctx, pod, port)
		if err != nil {
			unread = append(unread, fmt.Sprintf("%s: %v", pod.Name, err))
			continue
		}
		replicas = append(replicas, says)
	}
	switch {
	case len(replicas) == 0 && len(unread) > 0:
		return fleetload.Load{}, fmt.Errorf("no pod of the hub can be read: %s", strings.Join(unread, "; "))
	case len(replicas) == 0:
		return fleetload.Load{}, fmt.Errorf("no pod of the hub is ready in namespace %q (label %s)", r.namespace, hubPods)
	}
	load := fleetload.LoadOf(replicas)
	load.Unread = unread
	return load, nil
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func portOf(pod *corev1.Pod) int32 {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == metricsPort {
				return p.ContainerPort
			}
		}
	}
	return 0
}

// readPod reads one replica. A forward that fails is made anew at the next Read.
func (r *Reader) readPod(ctx context.Context, pod *corev1.Pod, port int32) (says fleetload.Replica, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	f := r.forwards[pod.UID]
	if f == nil {
		if f, err = r.open(ctx, pod, port); err != nil {
			return says, err
		}
		r.forwards[pod.UID] = f
	}
	says, err = f.read(ctx)
	if err != nil {
		f.close()
		delete(r.forwards, pod.UID)
	}
	says.Name = pod.Name
	return says, err
}

func (f *forward) read(ctx context.Context) (says fleetload.Replica, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/metrics", nil)
	if err != nil {
		return says, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return says, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return says, fmt.Errorf("GET /metrics: %s", response.Status)
	}
	return parse(io.LimitReader(response.Body, maxMetrics))
}

// parse reads metrics in the text format of Prometheus, those that make a Load.
func parse(text io.Reader) (says fleetload.Replica, err error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return says, fmt.Errorf("parse metrics: %w", err)
	}
	for _, name := range []string{fleetload.DemandMetric, fleetload.ShareMetric, fleetload.OpenMetric, fleetload.HeldOutMetric,
		fleetload.CapacityMetric, fleetload.ReadyMetric, fleetload.DrainedMetric} {
		for _, m := range families[name].GetMetric() {
			says.Samples = append(says.Samples, sampleOf(name, m))
		}
	}
	for _, m := range families[fleetload.DecidedMetric].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "replica" && m.GetGauge().GetValue() == 1 {
				says.DecidedBy = l.GetValue()
			}
		}
	}
	for name, count := range map[string]*int{fleetload.KnownMetric: &says.Known, fleetload.ConnectedMetric: &says.Connected} {
		for _, m := range families[name].GetMetric() {
			*count = int(m.GetGauge().GetValue())
		}
	}
	return says, nil
}

func sampleOf(name string, m *dto.Metric) fleetload.Sample {
	s := fleetload.Sample{Metric: name, Value: m.GetGauge().GetValue()}
	for _, l := range m.GetLabel() {
		switch l.GetName() {
		case "import":
			s.Import = l.GetValue()
		case "region":
			s.Region = l.GetValue()
		case "cluster":
			s.Cluster = l.GetValue()
		}
	}
	return s
}
