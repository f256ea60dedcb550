// Package network makes the lab's networks inside the network namespace it is
// called in: a backbone that joins nodes, regions and clients, a control link
// from each control plane to etcd and to the lab itself, and for each node a
// bridge with its pods.
//
//	           backbone (a bridge, 172.18.0.0/24)
//	   ┌───────────┬───┴───────┬──────────────┬────────────┐
//	node hub   node us-west   ...        edge-us       client-us
//	 10.10/16   10.1/16                  198.18.1/24
//	   └───────────┴── control (a bridge, 172.19.0.0/24) ── etcd, the lab
//
// What has an IPv4 address in a node or a pod has an IPv6 address, too: fd10::
// with the IPv4 address as its last four bytes (see Twin). Gateway addresses,
// clients and the lab itself have only IPv4.
//
// It owns addresses, routes and links. Neighbours on the backbone are entered
// by hand and for ever, so that a cut link swallows packets, as a dead one in
// the field does, where address resolution would soon answer "no route to
// host". It never starts a program.
//
//	net, err := network.New([]network.NodeSpec{{Name: "us-west", PodCIDR: netip.MustParsePrefix("10.1.0.0/16"), Control: true}})
//	net.Cut("us-west")
package network
