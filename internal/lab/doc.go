// Package lab starts a real fleet on one machine, without Docker: a hub
// cluster and member clusters, each with its own API server, controller
// manager, nodes and pods; one region network with Envoys and clients for each
// region. It serves the demo, the end-to-end tests and the benchmarks.
//
// Everything lives in namespaces of the kernel's (process ids, mounts, network)
// that Enter makes: nothing is configured in the machine's own network, no
// packet can leave, a second lab beside the first does not notice it, and
// however the lab ends, also by SIGKILL, the kernel takes every process,
// interface and file of it away.
//
// It is a fixture, not a product: it never decides anything about services or
// traffic, and nothing in cmd or pkg may import it.
//
//	func main() {
//		lab.Enter(lab.Entry{})                             // from here on inside
//		fleet, err := lab.Start(ctx, lab.Config{}, os.Stderr)
//		defer fleet.Close()
//		fleet.Members["us-west"].Apply(ctx, manifest)
//		fleet.Cut("us-west")                               // its packets vanish
//	}
//
// The packages: install finds the programs, process runs them, network makes
// nodes, regions and links, controlplane starts API servers, kubelet runs pods.
package lab
