// Package controlplane starts a Kubernetes control plane from plain programs:
// one etcd for any number of clusters, and for each cluster a kube-apiserver,
// a kube-controller-manager, and a kube-proxy for each node, with a
// certificate authority of its own.
//
// It owns the arguments of these programs and the cluster's certificates. It
// never runs pods (see internal/lab/kubelet) and never makes networks.
//
//	etcd, err := controlplane.StartEtcd(ctx, env, "127.0.0.1")
//	cluster, err := controlplane.Start(ctx, env, controlplane.Spec{Name: "hub", Etcd: etcd, ...})
//	client, err := kubernetes.NewForConfig(cluster.REST)
package controlplane
