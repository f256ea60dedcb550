package kubelet

import (
	"context"
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// port is where a kubelet serves.
const port = 10250

// register writes the Node: ready, and never anything else. No controller of
// the lab judges nodes by their Leases.
func (k *Kubelet) register(ctx context.Context) error {
	labels := map[string]string{v1.LabelHostname: k.Name, v1.LabelOSStable: "linux"}
	maps.Copy(labels, k.Labels)
	nodes := k.Client.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.Name, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	capacity := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("64"), v1.ResourceMemory: resource.MustParse("64Gi"), v1.ResourcePods: resource.MustParse("1000"),
	}
	now := metav1.Now()
	node.Status = v1.NodeStatus{
		Capacity: capacity, Allocatable: capacity,
		Addresses:       []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: k.Network.Address.String()}, {Type: v1.NodeHostName, Address: k.Name}},
		DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: port}},
		Conditions: []v1.NodeCondition{{
			Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now,
			Message: "pods of this node are processes of the lab",
		}},
		NodeInfo: v1.NodeSystemInfo{KubeletVersion: "v0.0.0-crossway-lab", OperatingSystem: "linux", OSImage: "crossway lab"},
	}
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}
