package envoy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"crossway.dev/crossway/internal/testkit"
)

// A path that loses the first packet of each connection is slow, and no reason to fail: the kernel sends it again after 1 s.
func TestLostSYNOnARealEnvoy(t *testing.T) {
	t.Parallel()
	if testing.Short() || !testkit.InOwnNetwork(t) {
		return
	}
	far := listenOn(t, vanishing, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	nft(t, `table ip far {
		set seen { type inet_service; flags dynamic,timeout; timeout 30s; }
		chain out { type filter hook output priority 0;
			ip daddr `+vanishing+` tcp sport @seen accept
			ip daddr `+vanishing+` tcp flags & (syn | ack) == syn add @seen { tcp sport } drop
		}
	}`)
	port := behindDead(t, 0, far)
	for _, most := range []time.Duration{5 * time.Second, time.Second} { // the second has a connection
		began := time.Now()
		if got := uploaded(t, port, http.MethodPost, nil); !strings.HasPrefix(got, "200") || time.Since(began) > most {
			t.Errorf("%s after %s", got, time.Since(began))
		}
	}
}

// distance is how long a packet takes to a region on the other side of the earth, and as long back.
const distance = 175 * time.Millisecond

// Addresses of the far region: who connects to the second one reaches what listens on the first, late.
const farServer, farAddress = "10.99.0.1", "10.99.0.2"

// relay makes a device that gives each packet back after a while, with source and destination exchanged. A checksum of IP
// and TCP is the same for both orders.
func relay(t *testing.T) {
	t.Helper()
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "far0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI, Queues: 1}
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("no tun device: %v", err)
	}
	address, err := netlink.ParseAddr(farServer + "/24")
	testkit.Must(t, err)
	testkit.Must(t, netlink.AddrAdd(link, address))
	testkit.Must(t, netlink.LinkSetUp(link))
	type packet struct {
		bytes []byte
		due   time.Time
	}
	device, onTheWay := link.Fds[0], make(chan packet, 4096)
	t.Cleanup(func() { device.Close() })
	go func() {
		defer close(onTheWay)
		for {
			p := make([]byte, 1500)
			n, err := device.Read(p)
			if err != nil {
				return
			}
			if n < 20 || p[0]>>4 != 4 { // IPv6 looks for neighbours
				continue
			}
			var source [4]byte
			copy(source[:], p[12:16])
			copy(p[12:16], p[16:20])
			copy(p[16:20], source[:])
			onTheWay <- packet{p[:n], time.Now().Add(distance)}
		}
	}()
	go func() {
		for p := range onTheWay {
			time.Sleep(time.Until(p.due))
			if _, err := device.Write(p.bytes); err != nil && !os.IsTimeout(err) {
				return
			}
		}
	}()
}

// A region 350 ms away is reached, by any method and with bodies of several round trips, and requests on a connection that
// is open take one.
func TestFarRegionOnARealEnvoy(t *testing.T) {
	t.Parallel()
	if testing.Short() || !testkit.InOwnNetwork(t) {
		return
	}
	relay(t)
	far := listenOn(t, farServer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}))
	port := behindDead(t, 0, netip.AddrPortFrom(netip.MustParseAddr(farAddress), far.Port()))
	for _, size := range []int{0, 1 << 10, 1 << 20} {
		for _, method := range []string{http.MethodPut, http.MethodPost} {
			began := time.Now()
			got := uploaded(t, port, method, bytes.NewReader(make([]byte, size)))
			took := time.Since(began)
			if want := fmt.Sprint("200 ", size); got != want || took < 2*distance {
				t.Errorf("%s of %d bytes: %s after %s, want %s", method, size, got, took, want)
			}
			t.Logf("%s of %d bytes: %s", method, size, took)
		}
	}
}
