package envoy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"crossway.dev/crossway/internal/testkit"
)

// A path that loses the first packet of each connection is slow, and no reason to fail: the kernel sends it again after 1 s.
func TestLostSYNOnARealEnvoy(t *testing.T) {
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
