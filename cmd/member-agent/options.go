package main

import (
	"errors"
	"flag"
	"fmt"

	"k8s.io/apimachinery/pkg/util/validation"

	"crossway.dev/crossway/pkg/fleet"
)

// Options are the flags of member-agent, beside those of every program.
type Options struct {
	Cluster       string
	HubKubeconfig string
	Kubeconfig    string
	MetricsAddr   string
	HealthAddr    string
	LeaderElect   bool
	Namespace     string
}

// Bind adds the flags to a set.
func (o *Options) Bind(flags *flag.FlagSet) {
	flags.StringVar(&o.Cluster, "cluster", "", "name of this cluster's MemberCluster on the hub (required)")
	flags.StringVar(&o.HubKubeconfig, "hub-kubeconfig", "", "kubeconfig file for the hub, as user crossway:member:<cluster> (required)")
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig file for this cluster; empty: the pod's own ServiceAccount")
	flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "address of /metrics; 0: none")
	flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "address of /healthz and /readyz; 0: none")
	flags.BoolVar(&o.LeaderElect, "leader-elect", false, "let one of several agents of this cluster work, by a Lease in --namespace")
	flags.StringVar(&o.Namespace, "namespace", "", "namespace of the agent in this cluster, for its Lease (required with --leader-elect)")
}

// maxClusterLength is the length of the longest name of a MemberCluster.
const maxClusterLength = 50

// Validate returns all faults of the flags together.
func (o *Options) Validate() error {
	var faults []error
	if o.Cluster == "" {
		faults = append(faults, errors.New("--cluster is missing: give the name of this cluster's MemberCluster on the hub"))
	} else if wrong := validation.IsDNS1123Label(o.Cluster); len(wrong) > 0 || len(o.Cluster) > maxClusterLength || o.Cluster == string(fleet.HubCluster) {
		faults = append(faults, fmt.Errorf("--cluster=%s cannot be the name of a MemberCluster: at most %d lower case letters, digits and '-', not %q", o.Cluster, maxClusterLength, fleet.HubCluster))
	}
	if o.HubKubeconfig == "" {
		faults = append(faults, errors.New("--hub-kubeconfig is missing: give the kubeconfig file for the hub"))
	}
	if o.LeaderElect && o.Namespace == "" {
		faults = append(faults, errors.New("--leader-elect needs --namespace: the namespace for the agents' Lease"))
	}
	return errors.Join(faults...)
}
