// Package install finds or makes the programs that the lab runs: etcd,
// kube-apiserver, kube-controller-manager, kube-proxy and kubectl (built from
// the nested module internal/lab/binaries), CoreDNS (from internal/lab/coredns),
// Envoy, helm, and nft.
//
// It owns the cache directory (${CROSSWAY_CACHE}, else the user's cache
// directory, "crossway"). A cached program is complete or absent: programs are
// built beside their place and renamed into it, and a lock keeps two runs from
// building the same thing. It never starts a program that stays, and it needs
// the Internet only for what is not cached.
//
//	programs, err := install.Ensure(ctx, os.Stderr)
//	exec.Command(programs.Path("kubectl"), "version")
package install
