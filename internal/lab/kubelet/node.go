package kubelet

import (
	"context"
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// port is where a kubelet serves.
const port = 10250

// register writes the Node.
func (k *Kubelet) register(ctx context.Context) error {
	nodes := k.Client.CoreV1().Nodes()
	desired := k.Node()
	node, err := nodes.Create(ctx, desired, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status = desired.Status
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// Node is the kubelet's Node object. It is always Ready: no controller of the
// lab judges nodes by their Leases. NetworkUnavailable is True where the node
// has no pod network; such a node runs pods with hostNetwork only.
func (k *Kubelet) Node() *v1.Node {
	labels := map[string]string{v1.LabelHostname: k.Name, v1.LabelOSStable: "linux"}
	maps.Copy(labels, k.Labels)
	capacity := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("64"), v1.ResourceMemory: resource.MustParse("64Gi"), v1.ResourcePods: resource.MustParse("1000"),
	}
	now := metav1.Now()
	network := v1.NodeCondition{
		Type: v1.NodeNetworkUnavailable, Status: v1.ConditionFalse, Reason: "PodNetwork", LastHeartbeatTime: now, LastTransitionTime: now,
		Message: "each pod of this node has a network of its own",
	}
	if !k.Network.HasPods() {
		network.Status, network.Reason, network.Message = v1.ConditionTrue, noPodNetwork, "this node has no pod network; it runs pods with hostNetwork only"
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: k.Name, Labels: labels},
		Status: v1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Addresses:       []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: k.Network.Address.String()}, {Type: v1.NodeHostName, Address: k.Name}},
			DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: port}},
			Conditions: []v1.NodeCondition{{
				Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now,
				Message: "pods of this node are processes of the lab",
			}, network},
			NodeInfo: v1.NodeSystemInfo{KubeletVersion: "v0.0.0-crossway-lab", OperatingSystem: "linux", OSImage: "crossway lab"},
		},
	}
}

// noPodNetwork is the reason of a Node, and of a pod bound to it by hand, where
// the node has no pod network and the pod needs one.
const noPodNetwork = "NoPodNetwork"

// hasPodNetwork reports whether a Node takes pods without hostNetwork.
func hasPodNetwork(node *v1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == v1.NodeNetworkUnavailable {
			return c.Status != v1.ConditionTrue
		}
	}
	return true
}

// checkNode returns an error for a pod that its node cannot run.
func (k *Kubelet) checkNode(spec v1.PodSpec) error {
	if spec.HostNetwork || k.Network.HasPods() {
		return nil
	}
	return fmt.Errorf("node %s has no pod network, so it runs only pods with hostNetwork: set hostNetwork, or leave the choice of the node to the scheduler", k.Name)
}
