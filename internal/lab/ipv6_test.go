package lab_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/testkit"
)

// Pods and Services have IPv6 addresses, which answer in their own cluster and, of pods, in others.
func TestIPv6(t *testing.T) {
	west, far := fleet.Members["us-west"], fleet.Members["eu-west"]
	apply(t, west, "six", strings.Replace(echo, "  selector: {app: echo}\n  ports", "  ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv6, IPv4]\n  selector: {app: echo}\n  ports", 1))
	apply(t, far, "six", echo)
	testkit.Must(t, west.AwaitPods(within(t, 20*time.Second), "six", "app=echo", 2))
	testkit.Must(t, far.AwaitPods(within(t, 20*time.Second), "six", "app=echo", 2))
	service, err := west.Client.CoreV1().Services("six").Get(t.Context(), "echo", metav1.GetOptions{})
	testkit.Must(t, err)
	ours, err := west.Client.CoreV1().Pods("six").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	theirs, err := far.Client.CoreV1().Pods("six").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	for from, c := range map[string]struct {
		dial    func(context.Context, string, string) (net.Conn, error)
		address string
	}{
		"a pod to a Service":                 {west.DialerIn("six", ours.Items[0].Name), net.JoinHostPort(service.Spec.ClusterIP, "80")},
		"a pod to a pod of another cluster":  {far.DialerIn("six", theirs.Items[0].Name), net.JoinHostPort(ours.Items[0].Status.PodIPs[1].IP, "8080")},
		"a node to a Service of its cluster": {fleet.DialerAt("us-west"), net.JoinHostPort(service.Spec.ClusterIP, "80")},
	} {
		eventually(t, within(t, 20*time.Second), from, func() (bool, string) {
			conn, err := c.dial(within(t, 2*time.Second), "tcp", c.address)
			if err == nil {
				conn.Close()
			}
			return err == nil, fmt.Sprint(err)
		})
	}
	testkit.Must(t, fleet.Cut("us-west"))
	defer func() { testkit.Must(t, fleet.Restore("us-west")) }()
	conn, err := far.DialerIn("six", theirs.Items[0].Name)(within(t, time.Second), "tcp", net.JoinHostPort(ours.Items[0].Status.PodIPs[1].IP, "8080"))
	if err == nil {
		conn.Close()
		t.Error("a cut lets IPv6 through")
	}
}
