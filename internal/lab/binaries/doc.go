// Package binaries pins the versions of the programs that the lab runs:
// Kubernetes 1.37.2, its etcd, and kubectl. It is a module of its own, so that
// k8s.io/kubernetes stays out of the product's go.mod. It has no code: see
// internal/lab/install, which builds it.
package binaries
