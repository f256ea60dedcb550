package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/lab/load"
)

// caller is a pod of eu-west that calls the store by its name in the clusterset.
const caller = "caller"

const storeName = "store.shop.svc.clusterset.local"

// imports shows a pod of one cluster that calls a service of all by name, through the cluster's own CoreDNS and
// kube-proxy: while exports come and go, and while a cluster is cut off, which only the hub's admin can answer.
func (s *Story) imports(ctx context.Context) error {
	c, err := s.Lab.Cluster("eu-west")
	if err != nil {
		return err
	}
	if err := c.Apply(ctx, render("caller.yaml", nil)); err != nil {
		return err
	}
	if err := c.AwaitPods(ctx, "shop", "app="+caller, 1); err != nil {
		return err
	}
	config := s.callerOf(c)
	if err := s.AwaitAnswers(ctx, config, storeName+" in a pod of eu-west"); err != nil {
		return err
	}
	if err := s.comeAndGo(ctx, c, config); err != nil {
		return err
	}
	return s.cutImport(ctx, c, config)
}

// callerOf are requests of the pod: each asks CoreDNS for the name and opens a connection of its own.
func (s *Story) callerOf(c *lab.Cluster) load.Config {
	dial := c.DialerIn("shop", caller)
	client := load.Client(func(ctx context.Context, network, address string) (net.Conn, error) {
		name, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		answer, err := c.Lookup(ctx, dial, dnsmessage.TypeA, name)
		if err != nil || len(answer.Records) == 0 {
			return nil, errors.Join(fmt.Errorf("%s: %s", name, answer), err)
		}
		return dial(ctx, network, net.JoinHostPort(strings.TrimPrefix(answer.Records[0], "A "), port))
	}, nil)
	client.Transport.(*http.Transport).DisableKeepAlives = true
	client.Timeout = 2 * time.Second
	return load.Config{Rate: 100, URL: "http://" + storeName + ":8080/", Client: client}
}

// comeAndGo withdraws the store from the caller's own region, and then one of the other two clusters.
func (s *Story) comeAndGo(ctx context.Context, c *lab.Cluster, config load.Config) error {
	recorder := load.Start(ctx, config)
	defer recorder.Stop()
	sleep(ctx, 3*time.Second)
	home := load.Part(recorder.Samples(), "eu-west")
	for _, cluster := range []string{"eu-west", "us-east"} {
		exporter, err := s.Lab.Cluster(cluster)
		if err != nil {
			return err
		}
		if err := exporter.Delete(ctx, render("export.yaml", app{Namespace: "shop", Name: "store"})); err != nil {
			return err
		}
		sleep(ctx, 3*time.Second)
		now := time.Now()
		window := load.Between(recorder.Samples(), now.Add(-time.Second), now)
		s.note("without %s: %.0f %% us-west, %.0f %% us-east, %.0f %% eu-west", cluster, 100*load.Part(window, "us-west"), 100*load.Part(window, "us-east"), 100*load.Part(window, "eu-west"))
		if part := load.Part(window, cluster); part > 0 {
			return fmt.Errorf("%s answers %.0f %% of the requests without its export", cluster, 100*part)
		}
	}
	if err := s.exportFrom(ctx, "shop", "store", "us-east"); err != nil {
		return err
	}
	sleep(ctx, 3*time.Second)
	samples := recorder.Stop()
	s.explainFailures(samples)
	s.set("import_home_percent", 100*home)
	s.set("import_failed", float64(load.Failed(samples)))
	s.set("import_requests", float64(len(samples)))
	return nil
}

// cutImport cuts off us-west while the caller's own cluster exports nothing. kube-proxy knows no health but readiness,
// which a cluster that is cut off does not report: it goes on sending there until somebody who knows says so.
func (s *Story) cutImport(ctx context.Context, c *lab.Cluster, config load.Config) error {
	defer func() { _ = s.exportFrom(context.WithoutCancel(ctx), "shop", "store", "eu-west") }()
	recorder := load.Start(ctx, config)
	defer recorder.Stop()
	sleep(ctx, 2*time.Second)
	cut := time.Now()
	err := s.Lab.Cut("us-west")
	sleep(ctx, 8*time.Second)
	word := time.Now()
	if err == nil {
		err = s.mayExport(ctx, "us-west", "[]")
	}
	sleep(ctx, 8*time.Second)
	end := time.Now()
	restored := errors.Join(s.Lab.Restore("us-west"), s.mayExport(ctx, "us-west", `["*"]`))
	samples := recorder.Stop()
	if err := errors.Join(err, restored); err != nil {
		return err
	}
	lost := load.Between(samples, cut, word)
	s.set("import_cut_failed_percent", 100*float64(load.Failed(lost))/float64(max(len(lost), 1)))
	after := load.Between(samples, word, end)
	if took, ok := load.SettledAfter(after, word, 3*time.Second, func(window []load.Sample) bool { return load.Failed(window) == 0 }); ok {
		s.set("import_cut_cured_seconds", took.Seconds())
	}
	s.note("kube-proxy sends on to a cluster that is cut off: nobody there says that its pods are away. The edges notice (step cut);")
	s.note("for pods, an admin takes the cluster's exports away on the hub: kubectl patch membercluster us-west ... exports.namespaces: []")
	return s.Await(ctx, config, "us-west in the import again", func(sample load.Sample) bool { return sample.Cluster == "us-west" })
}

// mayExport says on the hub which namespaces a member may export.
func (s *Story) mayExport(ctx context.Context, member, namespaces string) error {
	_, err := s.Lab.Hub.Kubectl(ctx, nil, "patch", "membercluster", member, "--type=merge", "-p", `{"spec":{"exports":{"namespaces":`+namespaces+`}}}`)
	return err
}
