// Command lab leaves a lab running until ^C and offers it on 127.0.0.1 of the
// machine: every API server, with a kubeconfig of contexts hub, us-west,
// us-east and eu-west, and each region's first gateway address.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"crossway.dev/crossway/internal/lab"
)

// port is one door of the lab on the machine.
type port struct {
	listen string
	// The door of a cluster's API server, or of a region's gateways at a port.
	cluster, region, to string
}

var ports = []port{
	{listen: "127.0.0.1:16440", cluster: "hub"},
	{listen: "127.0.0.1:16441", cluster: "us-west"},
	{listen: "127.0.0.1:16442", cluster: "us-east"},
	{listen: "127.0.0.1:16443", cluster: "eu-west"},
	{listen: "127.0.0.1:18080", region: "us", to: "80"},
	{listen: "127.0.0.1:18443", region: "us", to: "443"},
	{listen: "127.0.0.1:28080", region: "eu", to: "80"},
	{listen: "127.0.0.1:28443", region: "eu", to: "443"},
}

func main() {
	entry := lab.Entry{}
	for _, p := range ports {
		entry.Listen = append(entry.Listen, p.listen)
	}
	lab.Enter(entry)
	if err := run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run() error {
	kubeconfig := flag.String("kubeconfig", "out/lab/kubeconfig", "where the kubeconfig is written")
	images := flag.String("images", "", "file (YAML or JSON) that extends the image table: repository -> {entrypoint, cmd, env, files}")
	bare := flag.Bool("bare", false, "clusters only, without Crossway")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	begin := time.Now()
	logs := filepath.Join(filepath.Dir(*kubeconfig), "logs")
	if err := os.RemoveAll(logs); err != nil {
		return err
	}
	fleet, err := lab.Start(ctx, lab.Config{LogDir: logs, ImageFile: *images}, os.Stderr)
	if err != nil {
		return err
	}
	defer fleet.Close()
	if !*bare {
		if err := fleet.Install(ctx, lab.InstallOptions{}); err != nil {
			return err
		}
	}
	if err := offer(ctx, fleet); err != nil {
		return err
	}
	if err := writeKubeconfig(fleet, *kubeconfig); err != nil {
		return err
	}
	fmt.Printf(help, time.Since(begin).Round(time.Second), *kubeconfig, logs, fleet.Programs.Dir)
	<-ctx.Done()
	fmt.Fprintln(os.Stderr, "closing the lab")
	return nil
}

const help = `
The lab runs (ready after %[1]s). ^C ends it and leaves nothing behind. Look at it from another shell:

  export KUBECONFIG=%[2]s PATH=%[4]s:$PATH
  kubectl --context hub get memberclusters,edgepools -A
  kubectl --context us-west get pods -A
  kubectl --context hub logs -n crossway-system deployment/crossway-hub

A service in every cluster, and one Gateway for them all:

  for c in us-west us-east eu-west; do
    sed "s/THIS-CLUSTER/$c/" examples/lab/member.yaml | kubectl --context $c apply -f -
  done
  kubectl --context hub apply -f examples/lab/hub.yaml
  kubectl --context hub get serviceimports,gateways,httproutes -A

Clients of both regions (the first Gateway's address; TLS at 18443 and 28443):

  curl --connect-to ::127.0.0.1:18080 http://store.example.com/    # us
  curl --connect-to ::127.0.0.1:28080 http://store.example.com/    # eu
  a browser: http://store.example.com:18080/ with "127.0.0.1 store.example.com" in /etc/hosts

Logs of all programs and pods: %[3]s
`

// offer relays the machine's sockets to the clusters' API servers and the
// regions' gateways.
func offer(ctx context.Context, fleet *lab.Lab) error {
	listeners, err := lab.Listeners()
	if err != nil {
		return err
	}
	for i, l := range listeners {
		p := ports[i]
		dial, address := fleet.DialerAt("hub"), ""
		if p.region != "" {
			dial, address = fleet.Dialer(p.region), net.JoinHostPort(fleet.GatewayAddresses(p.region).Addr().Next().String(), p.to)
		} else {
			c, err := fleet.Cluster(p.cluster)
			if err != nil {
				return err
			}
			dial, address = fleet.Dial, strings.TrimPrefix(c.REST.Host, "https://")
		}
		context.AfterFunc(ctx, func() { l.Close() })
		go relay(ctx, l, func() (net.Conn, error) { return dial(ctx, "tcp", address) })
	}
	return nil
}

// relay copies bytes both ways for each connection until the listener closes.
func relay(ctx context.Context, l net.Listener, dial func() (net.Conn, error)) {
	for {
		outer, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer outer.Close()
			inner, err := dial()
			if err != nil {
				return
			}
			defer inner.Close()
			stop := context.AfterFunc(ctx, func() { outer.Close() })
			defer stop()
			done := make(chan struct{}, 2)
			for _, way := range [][2]net.Conn{{outer, inner}, {inner, outer}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].(*net.TCPConn).CloseWrite() // the other way may go on
					done <- struct{}{}
				}()
			}
			<-done
			<-done
		}()
	}
}

// writeKubeconfig writes one file with a context for each cluster.
func writeKubeconfig(fleet *lab.Lab, name string) error {
	var all *clientcmdapi.Config
	for _, p := range ports {
		if p.cluster == "" {
			continue
		}
		c, err := fleet.Cluster(p.cluster)
		if err != nil {
			return err
		}
		one := c.KubeconfigFor("https://" + p.listen)
		if all == nil {
			all = &one
			continue
		}
		all.Clusters[c.Name], all.AuthInfos[c.Name], all.Contexts[c.Name] = one.Clusters[c.Name], one.AuthInfos[c.Name], one.Contexts[c.Name]
	}
	return clientcmd.WriteToFile(*all, name)
}
