// Package kubelet runs a node's pods as processes of this machine: each pod in
// a network namespace of its own (or its node's, with hostNetwork), each
// container with a root directory of its own, made of read-only views of the
// machine's programs, the image's files and the pod's volumes.
//
// It owns a Node object, the status of the pods bound to it, and their
// processes; Scheduler binds pods to nodes. It keeps a kubelet's promises that
// tests and charts lean on: environment, volumes that follow their Secrets and
// ConfigMaps, init containers, readiness probes, restarts, preStop, the grace
// period, logs, exec, port-forward. It differs where a lab gains by it:
// probing begins at 100 ms, volumes follow at once, and a container that
// declares TCP ports but no readiness probe is ready when the first one
// accepts a connection.
//
// It never does: liveness and startup probes, resource limits, lifecycle
// postStart hooks, persistent volumes, user namespaces. A volume it does not
// know keeps its pod waiting with a message.
//
//	k := kubelet.New(kubelet.Config{Name: "us-west", Network: node, Client: client, Informers: factory, Images: images, Dir: dir})
//	go k.Run(ctx)
package kubelet
