package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// Read returns the load as all ready replicas know it. One that cannot be read is an error: its edges would be missing.
func (r *Reader) Read(ctx context.Context) (fleetload.Load, error) {
	pods, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: hubPods})
	if err != nil {
		return fleetload.Load{}, fmt.Errorf("list the hub's pods: %w", err)
	}
	var replicas [][]fleetload.Sample
	for i := range pods.Items {
		pod := &pods.Items[i]
		port := portOf(pod)
		if pod.DeletionTimestamp != nil || !ready(pod) || port == 0 {
			continue
		}
		samples, err := r.readPod(ctx, pod, port)
		if err != nil {
			return fleetload.Load{}, fmt.Errorf("read the metrics of pod %s: %w", pod.Name, err)
		}
		replicas = append(replicas, samples)
	}
	if len(replicas) == 0 {
		return fleetload.Load{}, fmt.Errorf("no pod of the hub is ready in namespace %q (label %s)", r.namespace, hubPods)
	}
	return fleetload.Merge(replicas), nil
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
func (r *Reader) readPod(ctx context.Context, pod *corev1.Pod, port int32) (samples []fleetload.Sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	f := r.forwards[pod.UID]
	if f == nil {
		if f, err = r.open(ctx, pod, port); err != nil {
			return nil, err
		}
		r.forwards[pod.UID] = f
	}
	samples, err = f.read(ctx)
	if err != nil {
		f.close()
		delete(r.forwards, pod.UID)
	}
	return samples, err
}

func (f *forward) read(ctx context.Context) (samples []fleetload.Sample, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /metrics: %s", response.Status)
	}
	return parse(io.LimitReader(response.Body, maxMetrics))
}

// parse reads metrics in the text format of Prometheus, those that make a Load.
func parse(text io.Reader) ([]fleetload.Sample, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, fmt.Errorf("parse metrics: %w", err)
	}
	var samples []fleetload.Sample
	for _, name := range []string{fleetload.DemandMetric, fleetload.ShareMetric, fleetload.OpenMetric, fleetload.HeldOutMetric,
		fleetload.CapacityMetric, fleetload.ReadyMetric, fleetload.DrainedMetric} {
		for _, m := range families[name].GetMetric() {
			samples = append(samples, sampleOf(name, m))
		}
	}
	return samples, nil
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
