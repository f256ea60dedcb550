package main

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	ctrl "sigs.k8s.io/controller-runtime"

	"crossway.dev/crossway/pkg/registration/renewal"
)

// renewCommand runs in a pod of charts/edge.
func renewCommand(a *app) *cobra.Command {
	r := renewal.Renewer{}
	var once bool
	c := &cobra.Command{
		Use:   "renew",
		Short: "Keeps the certificate of edges current",
		Long: `Keeps the certificate in the Secret of edges current: renews it at the hub when a
third of its life is left, or when the hub has another CA. Runs until it is stopped,
in the cluster of the edges. charts/edge runs it.`,
		Example: `  crossway edge renew --once --secret-name crossway-edge-us --hub hub.example.com:18000`,
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if _, _, err := net.SplitHostPort(r.Hub); err != nil {
				return usage("--hub %q is not like hub.example.com:18000", r.Hub)
			}
			cluster, _, err := a.clientOf(a.kubeconfig)
			if err != nil {
				return err
			}
			r.Client, r.Secret.Namespace, r.Now = cluster, a.namespace(), time.Now
			if once {
				return r.Renew(c.Context())
			}
			r.Log = logr.FromSlogHandler(slog.NewJSONHandler(a.streams.ErrOut, nil))
			ctrl.SetLogger(r.Log)
			r.Log.Info("renewing", "secret", r.Secret.String(), "hub", r.Hub)
			if err := r.Start(c.Context()); err != nil {
				return fmt.Errorf("renew: %w", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&r.Secret.Name, "secret-name", "", "Secret with the certificate, in --namespace (required)")
	f.StringVar(&r.Hub, "hub", "", "address of the hub's xDS port, like hub.example.com:18000 (required)")
	f.StringVar(&r.ServerName, "server-name", "crossway-hub.crossway-system.svc", "name that the hub's certificate must have")
	f.DurationVar(&r.Interval, "interval", renewal.DefaultInterval, "how often to look")
	f.BoolVar(&once, "once", false, "look once, and end")
	for _, name := range []string{"secret-name", "hub"} {
		utilruntime.Must(c.MarkFlagRequired(name))
	}
	return c
}
