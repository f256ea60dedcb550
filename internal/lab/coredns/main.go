// Command coredns is CoreDNS with the plugins that two Corefiles name: the lab's
// and the one of the Gateway API's conformance suite. The official program has
// more than forty others. It is a module of its own, because CoreDNS brings its
// own versions of client-go; internal/lab/install builds it into the cache.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/whoami"
)

func main() { coremain.Run() }
