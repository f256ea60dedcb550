// Command lab leaves a lab running until ^C and offers it on 127.0.0.1 of the
// machine: every API server, with a kubeconfig of contexts hub, us-west,
// us-east and eu-west, and every Gateway of the hub, in each region where it has
// an address.
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

// apiServers are the addresses of the machine at which clusters are offered.
var apiServers = []struct{ cluster, listen string }{
	{"hub", "127.0.0.1:16440"},
	{"us-west", "127.0.0.1:16441"},
	{"us-east", "127.0.0.1:16442"},
	{"eu-west", "127.0.0.1:16443"},
}

func main() {
	lab.Enter(lab.Entry{})
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
	listeners, err := listenForAPIServers()
	if err != nil {
		return err
	}
	logs, gateways := filepath.Join(filepath.Dir(*kubeconfig), "logs"), filepath.Join(filepath.Dir(*kubeconfig), "gateways")
	if err := errors.Join(os.RemoveAll(logs), os.RemoveAll(gateways)); err != nil {
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
	if err := offerAPIServers(ctx, fleet, listeners); err != nil {
		return err
	}
	if err := writeKubeconfig(fleet, *kubeconfig); err != nil {
		return err
	}
	fmt.Printf(help, time.Since(begin).Round(time.Second), *kubeconfig, logs, fleet.Programs.Dir, gateways)
	forwardGateways(ctx, fleet, gateways)
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

Every Gateway is offered on this machine as soon as it has an address. Where is printed below, and kept in
%[5]s. The first one is at 18080 in region us and at 28080 in eu (TLS: 18443 and 28443), the next one at
18081 and 28081. Ask as a client of either region:

  curl --connect-to ::127.0.0.1:18080 http://store.example.com/    # us
  curl --connect-to ::127.0.0.1:28080 http://store.example.com/    # eu
  a browser: http://store.example.com:18080/ with "127.0.0.1 store.example.com" in /etc/hosts

Logs of all programs and pods: %[3]s

`

// listenForAPIServers opens the addresses of apiServers, in that order. It comes
// first, so that a lab beside another one fails at once.
func listenForAPIServers() ([]net.Listener, error) {
	var all []net.Listener
	for _, s := range apiServers {
		l, err := lab.Listen(s.listen)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// offerAPIServers relays the listeners to the clusters' API servers.
func offerAPIServers(ctx context.Context, fleet *lab.Lab, listeners []net.Listener) error {
	for i, s := range apiServers {
		c, err := fleet.Cluster(s.cluster)
		if err != nil {
			return err
		}
		address := strings.TrimPrefix(c.REST.Host, "https://")
		go relay(ctx, listeners[i], func() (net.Conn, error) { return fleet.Dial(ctx, "tcp", address) })
	}
	return nil
}

// relay copies bytes both ways for each connection until the listener is closed
// or ctx ends.
func relay(ctx context.Context, l net.Listener, dial func() (net.Conn, error)) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
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
	for _, s := range apiServers {
		c, err := fleet.Cluster(s.cluster)
		if err != nil {
			return err
		}
		one := c.KubeconfigFor("https://" + s.listen)
		if all == nil {
			all = &one
			continue
		}
		all.Clusters[c.Name], all.AuthInfos[c.Name], all.Contexts[c.Name] = one.Clusters[c.Name], one.AuthInfos[c.Name], one.Contexts[c.Name]
	}
	return clientcmd.WriteToFile(*all, name)
}
