package main

import (
	"crossway.dev/crossway/pkg/lbsync/endpoints"
	"crossway.dev/crossway/pkg/replica"
)

// divideTogether has the Loop tell other replicas of the hub what its edges report, and what is in force here, and hear the
// same of them.
func divideTogether(c endpoints.Config, o Options, links replica.Link) endpoints.Config {
	if o.replicaAddr() != "" {
		c.Hub.Replica, c.Load, c.Shares, c.PeersHeard = links.Name(), links.Topic("load"), links.Topic("shares"), links.Settled()
	}
	return c
}
