package registration

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/fleet"
)

// The stories of admission: `member us-west at=1 10.1.0.0/16` lines, then
// `us-west announces 10.1.0.1 ...`; the output is what is refused, and why.
func TestAdmitStories(t *testing.T) {
	datadriven.RunTest(t, "testdata/admit.txt", func(t *testing.T, d *datadriven.TestData) string {
		var reserved []netip.Prefix
		for _, arg := range d.CmdArgs {
			for _, v := range arg.Vals {
				reserved = append(reserved, netip.MustParsePrefix(v))
			}
		}
		var members []v1alpha1.MemberCluster
		var out strings.Builder
		for line := range strings.Lines(d.Input) {
			args := strings.Fields(line)
			if args[0] == "member" {
				members = append(members, readMember(t, args[1:]))
				continue
			}
			admitted, refused := Admissions(members, reserved)[fleet.ClusterName(args[0])].Admit(args[2:])
			fmt.Fprintf(&out, "%s: %v\n", args[0], admitted)
			for _, r := range refused {
				fmt.Fprintf(&out, "  %s\n", r)
			}
		}
		admissions := Admissions(members, reserved)
		for _, m := range members {
			for _, f := range admissions[fleet.ClusterName(m.Name)].Faults {
				fmt.Fprintf(&out, "%s: %s\n", m.Name, f)
			}
		}
		slices.Reverse(members)
		if again := Admissions(members, reserved); !reflect.DeepEqual(again, admissions) {
			t.Errorf("another order of the members admits something else: %+v", again)
		}
		return out.String()
	})
}

// readMember reads `us-west at=1 10.1.0.0/16 ...`, also with `unaccepted`, `deleted` or `local`.
func readMember(t *testing.T, args []string) v1alpha1.MemberCluster {
	m := v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: args[0]}}
	m.Spec.Accepted = true
	for _, w := range args[1:] {
		at, isTime := strings.CutPrefix(w, "at=")
		switch {
		case w == "local":
			m.Spec.Local = true
		case isTime:
			hour, err := strconv.Atoi(at)
			testkit.Must(t, err)
			m.CreationTimestamp = metav1.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)
		case w == "unaccepted":
			m.Spec.Accepted = false
		case w == "deleted":
			now := metav1.Now()
			m.DeletionTimestamp = &now
		default:
			m.Spec.EndpointCIDRs = append(m.Spec.EndpointCIDRs, w)
		}
	}
	return m
}

// Whatever the CIDRs, no address that means something else on each machine is
// admitted, nor one of the hub, nor one outside; and no address is admitted
// for two members.
func TestAdmitLaws(t *testing.T) {
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		if rapid.Bool().Draw(t, "four") {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address"))), rapid.IntRange(0, 12).Draw(t, "bits"))
		}
		return netip.PrefixFrom(netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))), rapid.IntRange(0, 6).Draw(t, "bits"))
	})
	rapid.Check(t, func(t *rapid.T) {
		var members []v1alpha1.MemberCluster
		cidrs := map[fleet.ClusterName][]netip.Prefix{}
		for i := range rapid.IntRange(1, 3).Draw(t, "members") {
			m := v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i)}}
			m.Spec.Accepted = true
			for _, p := range rapid.SliceOfN(prefix, 1, 3).Draw(t, "cidrs") {
				cidrs[fleet.ClusterName(m.Name)] = append(cidrs[fleet.ClusterName(m.Name)], p)
				m.Spec.EndpointCIDRs = append(m.Spec.EndpointCIDRs, p.String())
			}
			members = append(members, m)
		}
		reserved := rapid.SliceOfN(prefix, 0, 1).Draw(t, "reserved")
		address := rapid.OneOf(
			rapid.Custom(func(t *rapid.T) netip.Addr {
				return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")))
			}),
			rapid.Custom(func(t *rapid.T) netip.Addr {
				return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")))
			}),
			rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("::1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("ff02::1"), netip.IPv6Unspecified()}),
		).Draw(t, "address")
		var by []fleet.ClusterName
		for name, a := range Admissions(members, reserved) {
			if a.Refuses(address) != "" {
				continue
			}
			by = append(by, name)
			if address.IsLoopback() || address.IsLinkLocalUnicast() || address.IsMulticast() || address.IsUnspecified() {
				t.Fatalf("%s may announce %s", name, address)
			}
			if slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(address) }) {
				t.Fatalf("%s may announce %s of the hub", name, address)
			}
			if !slices.ContainsFunc(cidrs[name], func(p netip.Prefix) bool { return p.Contains(address) }) {
				t.Fatalf("%s may announce %s, outside of %v", name, address, cidrs[name])
			}
		}
		if len(by) > 1 {
			t.Fatalf("%v may all announce %s", by, address)
		}
	})
}

// What means something else on each machine, and what is the hub's own, no range
// admits, however wide.
func TestNoRangeAdmitsThese(t *testing.T) {
	m := v1alpha1.MemberCluster{Spec: v1alpha1.MemberClusterSpec{Accepted: true, EndpointCIDRs: []string{"0.0.0.0/0", "::/0"}}}
	m.Name = "wide"
	a := Admissions([]v1alpha1.MemberCluster{m}, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/64")})["wide"]
	for _, address := range []string{"169.254.169.254", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "10.96.0.1", "fd00:96::1",
		"fe80::1", "fe80::1%eth0", "::1", "::", "ff02::1", "::ffff:10.1.0.1", "::ffff:169.254.169.254",
		"64:ff9b::a9fe:a9fe", "64:ff9b::10.96.0.1", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1", "2001::1"} {
		if a.Refuses(netip.MustParseAddr(address)) == "" {
			t.Errorf("%s is admitted", address)
		}
	}
	for _, address := range []string{"10.1.0.1", "fd00:1::1", "2001:db8::1", "2600:1f14::1"} {
		if reason := a.Refuses(netip.MustParseAddr(address)); reason != "" {
			t.Errorf("%s %s", address, reason)
		}
	}
}
