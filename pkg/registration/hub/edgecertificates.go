package hub

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/registration"
)

// EdgeCertificates reports on the certificates of connected edges: as conditions and
// status of EdgePools, and as metrics. It is a Runnable of every replica; who leads writes
// what it reports.
type EdgeCertificates struct {
	// Reader reads EdgePools and the hub's Secrets from the cache.
	Reader    client.Reader
	Namespace string // of the Secrets
	// Edges are those that are connected to any replica.
	Edges func() []registration.ConnectedEdge
	// Settled: edges have had the time to find this process. Nothing is reported before.
	// Nil: they have.
	Settled func() bool
	// Fault is why there is no edge CA; nil if there is one.
	Fault    func() error
	Reporter interface{ Report([]condition.Report) }
	Log      logr.Logger
}

// certificatesInterval is between two reports.
const certificatesInterval = 2 * time.Second

// NeedLeaderElection says that every replica reports.
func (e *EdgeCertificates) NeedLeaderElection() bool { return false }

// Start reports until ctx ends.
func (e *EdgeCertificates) Start(ctx context.Context) error {
	for {
		if err := e.report(ctx); err != nil && ctx.Err() == nil {
			e.Log.Error(err, "could not report on certificates of edges")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(certificatesInterval):
		}
	}
}

func (e *EdgeCertificates) report(ctx context.Context) error {
	if e.Settled != nil && !e.Settled() {
		return nil
	}
	var pools v1alpha1.EdgePoolList
	if err := e.Reader.List(ctx, &pools); err != nil {
		return fmt.Errorf("list EdgePools: %w", err)
	}
	edges, fault, ca := e.Edges(), e.Fault(), ""
	if secret := e.secret(ctx, registration.EdgeCASecret); secret != nil {
		ca = registration.CAOf(secret.Data).Name()
	}
	reports := make([]condition.Report, len(pools.Items))
	for i := range pools.Items {
		reports[i] = registration.EdgePoolReport(&pools.Items[i], edges, ca, fault, time.Now())
	}
	e.Reporter.Report(reports)
	return nil
}

func (e *EdgeCertificates) secret(ctx context.Context, name string) *corev1.Secret {
	var secret corev1.Secret
	if e.Reader.Get(ctx, client.ObjectKey{Namespace: e.Namespace, Name: name}, &secret) != nil {
		return nil // not there, or the cache has not begun: there is nothing to say about it
	}
	return &secret
}

// Collectors are the metrics of when certificates end, which the caller registers.
func (e *EdgeCertificates) Collectors() []prometheus.Collector {
	missing := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "crossway_edge_ca_missing",
		Help: "1 while there is no edge CA although there was one before, so that nothing is signed (on the leader); the log says what to do."}, func() float64 {
		if e.Fault() != nil {
			return 1
		}
		return 0
	})
	return []prometheus.Collector{missing,
		NewExpiryCollector("edge", e.edgeEnds),
		NewExpiryCollector("ca", func() map[string]time.Time {
			ends := e.ends(registration.EdgeCASecret)
			maps.Copy(ends, e.ends(registration.MemberCASecret))
			return ends
		}),
		NewExpiryCollector("server", func() map[string]time.Time {
			ends := map[string]time.Time{}
			for _, secret := range []string{registration.XDSSecret, registration.ReplicaSecret} {
				for _, end := range e.ends(secret) {
					ends[secret] = end
				}
			}
			return ends
		})}
}

// edgeEnds is when the first certificate of each credential ends, by pool and ID.
func (e *EdgeCertificates) edgeEnds() map[string]time.Time {
	ends := map[string]time.Time{}
	for _, edge := range e.Edges() {
		name := edge.Identity.Pool + "/" + edge.Identity.Credential
		if end, known := ends[name]; !known || edge.End.Before(end) {
			ends[name] = edge.End
		}
	}
	return ends
}

// ends is when a certificate in a Secret ends, by its common name.
func (e *EdgeCertificates) ends(secret string) map[string]time.Time {
	ends := map[string]time.Time{}
	if s := e.secret(context.Background(), secret); s != nil {
		if end, ok := registration.CertificateEnd(s.Data[corev1.TLSCertKey]); ok {
			ends[registration.CertificateName(s.Data[corev1.TLSCertKey])] = end
		}
	}
	return ends
}

// expiries is a Collector of when credentials of one kind end.
type expiries struct {
	description *prometheus.Desc
	ends        func() map[string]time.Time
}

// NewExpiryCollector makes the metric crossway_credential_expiry_timestamp_seconds of one
// kind of credentials, by their names.
func NewExpiryCollector(kind string, ends func() map[string]time.Time) prometheus.Collector {
	return expiries{expiryDescOf(kind), ends}
}

// Describe implements prometheus.Collector.
func (e expiries) Describe(c chan<- *prometheus.Desc) { c <- e.description }

// Collect implements prometheus.Collector.
func (e expiries) Collect(c chan<- prometheus.Metric) {
	for name, end := range e.ends() {
		c <- prometheus.MustNewConstMetric(e.description, prometheus.GaugeValue, float64(end.Unix()), name)
	}
}
