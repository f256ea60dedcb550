package main

import (
	"errors"
	"flag"
)

// Options are the flags of member-agent, beside those of every program.
type Options struct {
	Kubeconfig  string
	MetricsAddr string
	HealthAddr  string
	LeaderElect bool
	Namespace   string
}

// Bind adds the flags to a set.
func (o *Options) Bind(flags *flag.FlagSet) {
	flags.StringVar(&o.Namespace, "namespace", "", "namespace of the agent in this cluster, with its Secrets crossway-join and crossway-hub-credential (required)")
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for this cluster; empty: the pod's own ServiceAccount")
	flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "address of /metrics; 0: none")
	flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "address of /healthz and /readyz; 0: none")
	flags.BoolVar(&o.LeaderElect, "leader-elect", false, "let one of several agents of this cluster work, by a Lease in --namespace")
}

// Validate returns all faults of the flags together.
func (o *Options) Validate() error {
	if o.Namespace == "" {
		return errors.New("--namespace is missing: give the agent's own namespace, crossway-system")
	}
	return nil
}
